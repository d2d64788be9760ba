"""The losses once more, as loops over float64 scalars that follow the equations literally.

Nothing here imports the package. The scalars stay in torch's graph, so gradients can be
compared as well: ``sg`` is ``detach``.
"""

import math

import torch


def value_and_gradients(function, *tensors):
    """The value of ``function`` and its gradients, zeros where none arrives."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    value.backward()
    gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    return value.detach(), gradients


def positions(valid):
    """Every (image, row, column) that counts."""
    batch, height, width = valid.shape
    return [
        (b, i, j)
        for b in range(batch)
        for i in range(height)
        for j in range(width)
        if bool(valid[b, i, j])
    ]


def everywhere(maps):
    """The mask in which every position counts."""
    return torch.ones(maps.shape[0], *maps.shape[-2:], dtype=torch.bool)


def cosine(first, second):
    """<a, b> / (|a| |b|)."""
    channels = range(len(first))
    product = sum(first[c] * second[c] for c in channels)
    first_norm = torch.sqrt(sum(first[c] ** 2 for c in channels))
    second_norm = torch.sqrt(sum(second[c] ** 2 for c in channels))
    return product / (first_norm * second_norm)


def log_softmax(scores):
    """z_k - log sum_l exp(z_l), for a list of scalars."""
    log_sum = torch.log(sum(torch.exp(score) for score in scores))
    return [score - log_sum for score in scores]


def kl(target_scores, scores):
    """sum_k p_k (log p_k - log q_k), p and q the softmax of two lists of scalars."""
    target, logs = log_softmax(target_scores), log_softmax(scores)
    return sum(torch.exp(p) * (p - q) for p, q in zip(target, logs, strict=True))


def similarity_map(student, teacher):
    """S_p = <fs_p, ft_p> / (|fs_p| |ft_p|)."""
    student, teacher = student.double(), teacher.double()
    batch, _, height, width = student.shape
    rows = [
        cosine(student[b, :, i, j], teacher[b, :, i, j])
        for b in range(batch)
        for i in range(height)
        for j in range(width)
    ]
    return torch.stack(rows).reshape(batch, height, width)


def consensus_alignment(student, teacher, valid=None):
    """sum_valid c_p (1 - cos(fs_p, sg ft_p)) / sum_valid c_p, c_p = sg max(S_p, 0)."""
    similarity = similarity_map(student, teacher.detach())
    numerator = denominator = 0
    for p in positions(everywhere(student) if valid is None else valid):
        weight = max(similarity[p].item(), 0)
        numerator = numerator + weight * (1 - similarity[p])
        denominator += weight
    return numerator / denominator


def divergence_repulsion(student, teacher, valid=None):
    """sum_valid d_p cos(sg fs_p, ft_p) / sum_valid d_p, d_p = sg (1 - max(S_p, 0))."""
    similarity = similarity_map(student.detach(), teacher)
    numerator = denominator = 0
    for p in positions(everywhere(student) if valid is None else valid):
        weight = 1 - max(similarity[p].item(), 0)
        numerator = numerator + weight * similarity[p]
        denominator += weight
    return numerator / denominator


def cosine_distance(student, teacher, valid=None):
    """mean_valid (1 - cos(fs_p, sg ft_p))."""
    similarity = similarity_map(student, teacher.detach())
    counted = positions(everywhere(student) if valid is None else valid)
    return sum(1 - similarity[p] for p in counted) / len(counted)


def pixel_kl(student_logits, teacher_logits, tau=1.0, valid=None):
    """tau^2 * mean_valid KL(softmax(sg zt / tau) || softmax(zs / tau))."""
    student, teacher = student_logits.double(), teacher_logits.detach().double()
    counted = positions(everywhere(student) if valid is None else valid)
    total = 0
    for b, i, j in counted:
        total = total + kl(list(teacher[b, :, i, j] / tau), list(student[b, :, i, j] / tau))
    return tau**2 * total / len(counted)


def channel_wise_divergence(student, teacher, tau=1.0, valid=None):
    """tau^2 / (B*K) * sum_{b,k} KL over the valid positions of image b, teacher || student."""
    student, teacher = student.double(), teacher.detach().double()
    valid = everywhere(student) if valid is None else valid
    batch, channels = student.shape[:2]
    total = 0
    for b in range(batch):
        counted = [(i, j) for image, i, j in positions(valid) if image == b]
        for k in range(channels):
            target_scores = [teacher[b, k, i, j] / tau for i, j in counted]
            scores = [student[b, k, i, j] / tau for i, j in counted]
            total = total + (kl(target_scores, scores) if counted else 0)
    return tau**2 * total / (batch * channels)


def source_positions(index, source_size, target_size):
    """The two source indices and weights of x = (index + 1/2) * source / target - 1/2, x >= 0."""
    x = max((index + 0.5) * source_size / target_size - 0.5, 0)
    low = math.floor(x)
    high = min(low + 1, source_size - 1)
    return [(low, 1 - (x - low)), (high, x - low)]


def resize(plane, size):
    """Bilinear resizing of one (h, w) plane, align_corners=False."""
    rows = [
        sum(
            row_weight * column_weight * plane[row, column]
            for row, row_weight in source_positions(i, plane.shape[0], size[0])
            for column, column_weight in source_positions(j, plane.shape[1], size[1])
        )
        for i in range(size[0])
        for j in range(size[1])
    ]
    return torch.stack(rows).reshape(size)


def weighted_cross_entropy(logits, labels, weight, ignore_index=255):
    """sum_p w_p CE_p / sum_p w_p over labelled p, logits and sg w resized to the labels."""
    logits, weight = logits.double(), weight.detach().double()
    numerator = denominator = 0
    for b in range(len(labels)):
        planes = [resize(plane, tuple(labels.shape[1:])) for plane in logits[b]]
        weights = resize(weight[b], tuple(labels.shape[1:]))
        for i in range(labels.shape[1]):
            for j in range(labels.shape[2]):
                label = int(labels[b, i, j])
                if label == ignore_index:
                    continue
                logs = log_softmax([plane[i, j] for plane in planes])
                numerator = numerator - weights[i, j] * logs[label]
                denominator = denominator + weights[i, j]
    return numerator / denominator
