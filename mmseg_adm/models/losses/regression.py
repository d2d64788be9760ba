"""Losses that regress the teacher's features."""

from __future__ import annotations

from torch import Tensor

from .reduction import check_pair, position_weight, weighted_mean


def feature_error(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``mean_valid 1/C sum_c (s_c - sg t_c)^2``: FitNet's hint, and what MGD's generator fits.

    Romero et al., FitNets (arXiv 1412.6550), equation 3; Yang et al., Masked Generative
    Distillation (arXiv 2205.01529), which sums instead and divides by B: its
    weights times C*h*w are the ones here. Gradient reaches the student only.

    Args:
        student: (B, C, h, w), projected or generated.
        teacher: (B, C, h, w), detached here.
        valid: Boolean (B, h, w).
        avg_factor: The divisor in place of the number of valid positions.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(student, teacher)
    error = (student.float() - teacher.detach().float()).square().mean(dim=1)
    return weighted_mean(error, position_weight(student, valid), avg_factor)
