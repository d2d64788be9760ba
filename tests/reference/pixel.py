from .basics import everywhere, kl, log_softmax, positions, resize


def pixel_kl(student_logits, teacher_logits, tau=1.0, valid=None):
    """tau^2 * mean_valid KL(softmax(sg zt / tau) || softmax(zs / tau))."""
    student, teacher = student_logits.double(), teacher_logits.detach().double()
    counted = positions(everywhere(student) if valid is None else valid)
    total = 0
    for b, i, j in counted:
        total = total + kl(list(teacher[b, :, i, j] / tau), list(student[b, :, i, j] / tau))
    return tau**2 * total / len(counted)


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
