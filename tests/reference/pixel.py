from .basics import everywhere, kl, log_softmax, positions, resize


def pixel_kl(student_logits, teacher_logits, tau=1.0, valid=None, weight=None):
    """tau^2 * sum_valid w_p KL(softmax(sg zt_p / tau) || softmax(zs_p / tau)) / sum_valid w_p."""
    student, teacher = student_logits.double(), teacher_logits.detach().double()
    total = divisor = 0
    for b, i, j in positions(everywhere(student) if valid is None else valid):
        counted = 1 if weight is None else weight[b, i, j].item()
        total = total + counted * kl(
            list(teacher[b, :, i, j] / tau), list(student[b, :, i, j] / tau)
        )
        divisor += counted
    return tau**2 * total / divisor


def weighted_cross_entropy(logits, labels, weight, ignore_index=255, class_weight=None):
    """sum_p w_p k_p CE_p / sum_p w_p k_p over labeled p, logits and sg w resized to the labels.

    k_p is the weight of the class that p is labeled with.
    """
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
                counted = weights[i, j] * (1 if class_weight is None else class_weight[label])
                numerator = numerator - counted * logs[label]
                denominator = denominator + counted
    return numerator / denominator
