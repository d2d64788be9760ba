import torch

from .basics import probabilities


def distribution_distance(first_logits, second_logits, tau=1.0, valid=None):
    """mean_valid sum_k |p_k - q_k|."""
    first = probabilities(first_logits.detach(), tau, valid)
    second = probabilities(second_logits.detach(), tau, valid)
    pairs = [pair for p, q in zip(first, second, strict=True) for pair in zip(p, q, strict=True)]
    return sum(abs(p - q) for p, q in pairs) / len(first)


def label_distance(logits, labels, tau=1.0, ignore_index=255):
    """mean_valid sum_k |p_k - [k = y]|."""
    rows = probabilities(logits.detach(), tau, labels != ignore_index)
    true = labels[labels != ignore_index]
    total = sum(
        abs(p - float(k == label))
        for row, label in zip(rows, true, strict=True)
        for k, p in enumerate(row)
    )
    return total / len(rows)


def switching_threshold(student_distance, teacher_distance):
    """s - exp(-t / (t + s)) t."""
    s, t = student_distance.double(), teacher_distance.double()
    return s - torch.exp(-t / (t + s)) * t
