"""When a teacher waits for its student (SwitOKD).

Qian et al., Switchable Online Knowledge Distillation (arXiv 2209.04996).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_labels, check_pair, position_weight, weighted_mean


def distribution_distance(
    first_logits: Tensor,
    second_logits: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``g = mean_valid |softmax(z1/tau) - softmax(z2/tau)|_1``, in [0, 2]: the gap. No gradient.

    Args:
        first_logits: (B, K, h, w).
        second_logits: (B, K, h, w).
        tau: Temperature.
        valid: Boolean (B, h, w).
        avg_factor: The divisor in place of the number of valid positions.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(first_logits, second_logits)
    first, second = (
        F.softmax(logits.detach().float() / tau, dim=1) for logits in (first_logits, second_logits)
    )
    distance = (first - second).abs().sum(dim=1)
    return weighted_mean(distance, position_weight(first, valid), avg_factor)


def label_distance(
    logits: Tensor,
    labels: Tensor,
    tau: float = 1.0,
    ignore_index: int = 255,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``mean_valid |softmax(z/tau) - onehot(y)|_1 = mean_valid 2 (1 - p_y)``, in [0, 2].

    No gradient.

    Args:
        logits: (B, K, h, w).
        labels: (B, h, w), int64, at the size of the logits.
        tau: Temperature.
        ignore_index: Labels that do not count.
        avg_factor: The divisor in place of the number of labeled positions.

    Raises:
        ValueError: If shapes disagree.
    """
    check_labels(logits, labels)
    valid = labels != ignore_index
    probability = F.softmax(logits.detach().float() / tau, dim=1)
    true = probability.gather(1, labels.masked_fill(~valid, 0)[:, None])[:, 0]
    return weighted_mean(2 * (1 - true), valid.float(), avg_factor)


def switching_threshold(student_distance: Tensor, teacher_distance: Tensor) -> Tensor:
    """``delta = s - eps * t`` with ``eps = exp(-t / (t + s))``: the adaptive threshold.

    Args:
        student_distance: s, the student's :func:`label_distance`.
        teacher_distance: t, the teacher's.
    """
    total = (teacher_distance + student_distance).clamp(min=torch.finfo(torch.float32).tiny)
    return student_distance - torch.exp(-teacher_distance / total) * teacher_distance
