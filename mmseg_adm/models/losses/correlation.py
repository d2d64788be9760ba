"""Losses that ask for correlated predictions instead of equal ones (DIST).

Huang et al., Knowledge Distillation from A Stronger Teacher (arXiv 2205.10536). Where either
side is constant there is no correlation: rho is 0, and the loss 1.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_pair, position_weight, weighted_mean

# The least length of a centered distribution, and the least deviation of a class over positions,
# relative to its mean, since a class that is nowhere varies as well: at less than that the
# gradient would outweigh all others.
EPS_INTER = 1e-4
EPS_INTRA = 1e-3
# The least probability, that of a logit 80 below the others: relative deviations are divided by
# the mean of a class, and 1 over a smaller mean is infinite in float32, or its gradient is.
LEAST_PROBABILITY = 1e-35


def inter_class_correlation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``tau^2 mean_valid (1 - rho_p)``, rho_p Pearson's correlation over the classes at p.

    The inter-class relation, of ``softmax(zs / tau)`` and ``softmax(sg zt / tau)``. Gradient
    reaches the student only.

    Args:
        student_logits: (B, K, h, w).
        teacher_logits: (B, K, h, w), detached here.
        tau: Temperature.
        valid: Boolean (B, h, w).
        avg_factor: The divisor in place of the number of valid positions.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(student_logits, teacher_logits)
    student, teacher = _distributions(student_logits, teacher_logits, tau)
    # Every distribution has the mean 1/K.
    mean = 1 / student.shape[1]
    correlation = F.cosine_similarity(student - mean, teacher - mean, dim=1, eps=EPS_INTER)
    return tau**2 * weighted_mean(1 - correlation, position_weight(student, valid), avg_factor)


def intra_class_correlation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``tau^2 mean_k (1 - rho_k)``, rho_k Pearson's correlation over all valid positions.

    The intra-class relation, of ``softmax(zs / tau)`` and ``softmax(sg zt / tau)``: across the
    positions of the whole batch, which in several processes is the joined one. Gradient reaches
    the student only.

    Args:
        student_logits: (B, K, h, w).
        teacher_logits: (B, K, h, w), detached here.
        tau: Temperature.
        valid: Boolean (B, h, w).
        all_reduce: Adds a tensor up over processes, with gradient.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(student_logits, teacher_logits)
    mask = position_weight(student_logits, valid)[:, None]
    maps = torch.stack(_distributions(student_logits, teacher_logits, tau))
    # Where nothing counts a class may be 1e30 times as likely as its mean.
    maps = torch.where(mask > 0, maps.clamp(min=LEAST_PROBABILITY), torch.zeros_like(maps))

    def total(values: Tensor) -> Tensor:
        summed = (values * mask).sum(dim=(-4, -2, -1))
        return summed if all_reduce is None else all_reduce(summed)

    count = total(torch.ones_like(maps[0]))
    mean = (total(maps) / count.clamp(min=1))[:, None, :, None, None]
    # Relative deviations: their squares do not underflow, and rho is the same.
    student, teacher = maps / torch.where(mean > 0, mean, torch.ones_like(mean)) - 1
    products = total(torch.stack([student * teacher, student.square(), teacher.square()]))
    covariance, *variances = products / count.clamp(min=1)
    deviations = [variance.clamp(min=EPS_INTRA**2).sqrt() for variance in variances]
    distance = 1 - covariance / (deviations[0] * deviations[1])
    return tau**2 * weighted_mean(distance, (count > 0).float())


def _distributions(student: Tensor, teacher: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    return (
        F.softmax(student.float() / tau, dim=1),
        F.softmax(teacher.detach().float() / tau, dim=1),
    )
