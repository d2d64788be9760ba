import torch

from .basics import log_softmax, positions


def naive_target(logits, labels, ignore_index=255):
    """By image: the logits of the first network of lowest mean cross entropy."""
    target = torch.zeros_like(logits[0], dtype=torch.float64)
    for b in range(len(labels)):
        counted = [p for p in positions(labels != ignore_index) if p[0] == b]
        losses = [
            sum(
                -log_softmax(list(own[b, :, i, j].double()))[labels[b, i, j]] for _, i, j in counted
            )
            for own in logits
        ]
        target[b] = logits[losses.index(min(losses))][b]
    return target


def min_logit_target(logits, labels, ignore_index=255):
    """z_k = min_m (z_{m,k} - z_{m,y}) at labeled pixels, zero elsewhere."""
    target = torch.zeros_like(logits[0], dtype=torch.float64)
    for b, i, j in positions(labels != ignore_index):
        vectors = [own[b, :, i, j].double() for own in logits]
        for k in range(target.shape[1]):
            target[b, k, i, j] = min(z[k] - z[labels[b, i, j]] for z in vectors)
    return target


def mean_target(logits, labels, ignore_index=255):
    """1/M sum_m z_m."""
    return sum(own.double() for own in logits) / len(logits)
