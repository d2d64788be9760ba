"""Losses that compare where each channel responds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_pair, position_weight, weighted_mean


def channel_wise_divergence(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """KL between the two spatial distributions of each channel (CWD).

    Shu et al., Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256),
    equation 4: ``tau^2 / (B*K) * sum_{b,k} KL(softmax_p(sg t / tau) || softmax_p(s / tau))``,
    softmax over the valid positions p. Not divided by h*w: the softmax normalizes already.
    Gradient reaches the student only.

    With weights w, which are ours, both distributions are ``w_p exp(z_p / tau) / sum w exp(z /
    tau)``: a position counts as w of them would, and one of weight zero not at all.

    Args:
        student: (B, K, h, w): logits, or projected features.
        teacher: (B, K, h, w), detached here.
        tau: Temperature.
        valid: Boolean (B, h, w); other positions stay out of both softmaxes.
        avg_factor: The divisor in place of ``B*K``.
        weight: (B, h, w), not negative, detached here; by default all ones.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(student, teacher)
    counts = position_weight(student, valid, weight).flatten(1)[:, None]
    # A finite minimum: with -inf an image without valid positions would go through NaN.
    prior = counts.log().clamp(min=torch.finfo(counts.dtype).min)
    mask = counts > 0

    def log_distribution(maps: Tensor) -> Tensor:
        scores = maps.float().flatten(2) / tau
        return F.log_softmax(torch.where(mask, scores + prior, prior), dim=2)

    divergence = F.kl_div(
        log_distribution(student),
        log_distribution(teacher.detach()),
        reduction='none',
        log_target=True,
    )
    divisor = student.shape[0] * student.shape[1] if avg_factor is None else avg_factor
    return tau**2 * weighted_mean(divergence, mask.float().expand_as(divergence), divisor)
