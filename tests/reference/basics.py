"""What the formulas share: positions, lists of scalars and their gradients."""

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


def norm(vector):
    """sqrt(sum x^2), for a list of scalars; zero where it is empty."""
    return sum(x**2 for x in vector) ** 0.5


def cosine(first, second):
    """<a, b> / (|a| |b|)."""
    channels = range(len(first))
    product = sum(first[c] * second[c] for c in channels)
    first_norm = torch.sqrt(sum(first[c] ** 2 for c in channels))
    second_norm = torch.sqrt(sum(second[c] ** 2 for c in channels))
    return product / (first_norm * second_norm)


def pearson(first, second):
    """cov(x, y) / (std(x) std(y)), of two lists of scalars."""
    centered = [[x - sum(values) / len(values) for x in values] for values in (first, second)]
    return cosine(*centered)


def log_softmax(scores):
    """z_k - log sum_l exp(z_l), for a list of scalars."""
    log_sum = torch.log(sum(torch.exp(score) for score in scores))
    return [score - log_sum for score in scores]


def softmax(scores):
    """exp z_k / sum_l exp z_l, for a list of scalars."""
    return [torch.exp(log) for log in log_softmax(scores)]


def probabilities(logits, tau, valid):
    """softmax(z / tau) at every valid position, a list of scalars each."""
    logits = logits.double()
    counted = positions(everywhere(logits) if valid is None else valid)
    return [softmax(list(logits[b, :, i, j] / tau)) for b, i, j in counted]


def kl(target_scores, scores):
    """sum_k p_k (log p_k - log q_k), p and q the softmax of two lists of scalars."""
    target, logs = log_softmax(target_scores), log_softmax(scores)
    return sum(torch.exp(p) * (p - q) for p, q in zip(target, logs, strict=True))


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
