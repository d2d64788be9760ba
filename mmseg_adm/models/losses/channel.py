"""Losses that compare where each channel responds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_pair, mask_of, weighted_mean


def channel_wise_divergence(
    student: Tensor,
    teacher: Tensor,
    tau: float = 1.0,
    valid: Tensor | None = None,
    normalizer: Tensor | float | None = None,
) -> Tensor:
    """KL between the two spatial distributions of each channel (CWD).

    Shu et al., Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256),
    equation 4: ``tau^2 / (B*K) * sum_{b,k} KL(softmax_p(sg t / tau) || softmax_p(s / tau))``,
    softmax over the valid positions p. Not divided by h*w: the softmax normalises already.
    Gradient reaches the student only.

    Args:
        student: (B, K, h, w): logits, or projected features.
        teacher: (B, K, h, w), detached here.
        tau: Temperature.
        valid: Boolean (B, h, w); other positions stay out of both softmaxes.
        normalizer: The divisor in place of ``B*K``.

    Raises:
        ValueError: If shapes disagree.
    """
    check_pair(student, teacher, valid)
    mask = mask_of(valid, student).flatten(1)[:, None]

    def log_distribution(maps: Tensor) -> Tensor:
        scores = maps.float().flatten(2) / tau
        # A finite minimum: with -inf an image without valid positions would go through NaN.
        return F.log_softmax(scores.masked_fill(mask == 0, torch.finfo(scores.dtype).min), dim=2)

    divergence = F.kl_div(
        log_distribution(student),
        log_distribution(teacher.detach()),
        reduction='none',
        log_target=True,
    )
    divisor = student.shape[0] * student.shape[1] if normalizer is None else normalizer
    return tau**2 * weighted_mean(divergence, mask.expand_as(divergence), divisor)
