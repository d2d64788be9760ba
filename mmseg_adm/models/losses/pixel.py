"""Losses that compare class distributions pixel by pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .reduction import check_pair, position_weight, resize, weighted_mean


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


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    ignore_index: int = 255,
    avg_factor: Tensor | float | None = None,
    class_weight: Tensor | None = None,
) -> Tensor:
    """``sum_p w_p CE_p / sum_p w_p`` over the labelled pixels.

    ADM's ``weighting`` reading of divergence learning, with w = d (arXiv 2503.06685).
    Gradient reaches the logits only.

    Args:
        logits: (B, K, h, w), resized to the labels.
        labels: (B, H, W), int64.
        weight: (B, h', w'), not negative, resized to the labels, detached here.
        ignore_index: Labels that do not count.
        avg_factor: The divisor in place of the sum of the weights over labelled pixels.
        class_weight: (K,): a pixel's weight is multiplied by that of its label.

    Raises:
        ValueError: If shapes disagree.
    """
    if logits.dim() != 4 or len(logits) != len(labels):
        raise ValueError(
            'expected logits (B, K, h, w) for labels (B, H, W), got '
            f'{tuple(logits.shape)} and {tuple(labels.shape)}'
        )
    labelled = labelled_weight(weight, labels, ignore_index, class_weight)
    cross_entropy = F.cross_entropy(
        resize(logits.float(), labels.shape[-2:]),
        labels,
        ignore_index=ignore_index,
        reduction='none',
    )
    return weighted_mean(cross_entropy, labelled, avg_factor)


def labelled_weight(
    weight: Tensor, labels: Tensor, ignore_index: int = 255, class_weight: Tensor | None = None
) -> Tensor:
    """``weight`` (B, h, w) resized to the labels (B, H, W), zero where nothing is labelled.

    Multiplied by ``class_weight`` (K,) of the label, if there is one. Its sum is what
    :func:`weighted_cross_entropy` divides by. No gradient.

    Raises:
        ValueError: If the shapes are others.
    """
    if labels.dim() != 3 or weight.dim() != 3 or len(labels) != len(weight):
        raise ValueError(
            'expected a weight (B, h, w) for labels (B, H, W), got '
            f'{tuple(weight.shape)} and {tuple(labels.shape)}'
        )
    counted = labels != ignore_index
    resized = resize(weight.detach().float()[:, None], labels.shape[-2:])[:, 0] * counted
    return resized if class_weight is None else resized * class_weight[labels * counted]
