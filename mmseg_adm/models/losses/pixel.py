"""Losses that compare class distributions pixel by pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .reduction import check_pair, position_weight, weighted_mean


def pixel_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """``tau^2 * mean_valid KL(softmax(sg zt / tau) || softmax(zs / tau))``.

    Hinton et al., Distilling the Knowledge in a Neural Network (arXiv 1503.02531), section 2,
    at each pixel. Divided by the number of valid pixels: ``batchmean`` on a 4-D tensor
    divides by B alone and grows with the resolution. Gradient reaches the student only.

    With weights w it is ``tau^2 * sum_valid w_p KL_p / sum_valid w_p``: ADM's ``imitation``
    reading of consensus learning, with w = c (ours).

    Args:
        student_logits: (B, K, h, w).
        teacher_logits: (B, K, h, w), detached here.
        tau: Temperature.
        valid: Boolean (B, h, w).
        avg_factor: The divisor in place of the number, or the weights, of valid pixels.
        weight: (B, h, w), detached here; by default all ones.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(student_logits, teacher_logits)
    student = F.log_softmax(student_logits.float() / tau, dim=1)
    teacher = F.log_softmax(teacher_logits.detach().float() / tau, dim=1)
    divergence = F.kl_div(student, teacher, reduction='none', log_target=True).sum(dim=1)
    counts = position_weight(student_logits, valid, weight)
    return tau**2 * weighted_mean(divergence, counts, avg_factor)
