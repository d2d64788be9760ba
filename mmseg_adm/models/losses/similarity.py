"""Location-wise similarity of two feature maps, and what ADM builds on it.

Source: Asymmetric Decision-Making in Online Knowledge Distillation (arXiv 2503.06685).
The paper's words fix who learns where; the equations below are our reading of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_pair, position_weight, weighted_mean

CONTRASTS = ('center', 'standardize', 'rank')


def similarity_map(student: Tensor, teacher: Tensor) -> Tensor:
    """Cosine between the two channel vectors of each location, ``S_p`` (B, h, w) in float32.

    ``S_p = <fs_p, ft_p> / (|fs_p| |ft_p|)``, in [-1, 1] up to rounding; 0 where a vector is
    zero. Nothing is detached here: gradient reaches both maps.

    Raises:
        ValueError: If the maps are not (B, C, h, w) of equal shape.
    """
    check_pair(student, teacher)
    # At a zero vector the gradient is 1 / eps: PyTorch's own 1e-8 would let one dead location
    # outweigh all others.
    return F.cosine_similarity(student.float(), teacher.float(), dim=1, eps=1e-4)


def consensus_weight(
    similarity: Tensor, contrast: str | None = None, valid: Tensor | None = None
) -> Tensor:
    """``c_p``: high where both networks agree, in [0, 1]. Same shape, no gradient.

    Without contrast ``c_p = sg max(S_p, 0)``. A similarity that is high everywhere chooses
    nothing; the contrasts, which are ours, compare each position with the others of its image,
    with mean m and standard deviation s over its valid positions:

    ===============  =========================================
    ``center``       ``clip(1/2 + S_p - m, 0, 1)``
    ``standardize``  ``clip(1/2 + (S_p - m) / (4 s), 0, 1)``
    ``rank``         the share of positions that are less alike, equal ones counted half
    ===============  =========================================

    Args:
        similarity: (B, h, w).
        contrast: One of these, or ``None``.
        valid: Boolean (B, h, w): the positions that are compared with; by default all.

    Raises:
        ValueError: If shapes disagree or there is no such contrast.
    """
    similarity = similarity.detach().float()
    if contrast is None:
        # Rounding lifts the cosine of equal vectors above 1, and 1 - c below 0.
        return similarity.clamp(0, 1)
    if contrast not in CONTRASTS:
        raise ValueError(f'contrast must be one of {CONTRASTS} or None, got {contrast!r}')
    mask = position_weight(similarity[:, None], valid)
    if contrast == 'rank':
        return _rank(similarity, mask)
    count = mask.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    offset = similarity - (similarity * mask).sum(dim=(1, 2), keepdim=True) / count
    if contrast == 'standardize':
        variance = (offset.square() * mask).sum(dim=(1, 2), keepdim=True) / count
        # A map that is constant up to rounding stays at one half.
        offset = offset / (4 * variance.sqrt()).clamp(min=1e-3)
    return (0.5 + offset).clamp(0, 1)


def _rank(similarity: Tensor, mask: Tensor) -> Tensor:
    values, mask = similarity.flatten(1), mask.flatten(1)
    ordered = values.masked_fill(mask == 0, torch.inf).sort(dim=1).values
    below = torch.searchsorted(ordered, values)
    not_above = torch.searchsorted(ordered, values, right=True)
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    return ((below + not_above) / (2 * count)).clamp(max=1).view_as(similarity)


def divergence_weight(
    similarity: Tensor, contrast: str | None = None, valid: Tensor | None = None
) -> Tensor:
    """``d_p = 1 - c_p``: high where they differ. Arguments as for :func:`consensus_weight`."""
    return 1 - consensus_weight(similarity, contrast, valid)


def shuffled(weight: Tensor, valid: Tensor) -> Tensor:
    """``weight`` (B, h, w) with the valid positions of each image in random order.

    The control for every weight that is to choose positions: the same weights, elsewhere.

    Args:
        weight: (B, h, w).
        valid: Boolean (B, h, w); the other positions are mixed among themselves.
    """
    flat, last = weight.flatten(1), 2.0 * ~valid.flatten(1)
    places = last.argsort(dim=1, stable=True)
    drawn = (last + torch.rand_like(last)).argsort(dim=1)
    return flat.scatter(1, places, flat.gather(1, drawn)).view_as(weight)


def consensus_alignment(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """Pull the student to the teacher, the more so where they agree already.

    ``L_co = sum_valid c_p (1 - cos(fs_p, sg ft_p)) / sum_valid c_p``. Gradient reaches the
    student only.

    Args:
        student: (B, C, h, w).
        teacher: (B, C, h, w), detached here.
        valid: Boolean (B, h, w); the other positions do not count.
        avg_factor: The divisor in place of ``sum_valid c_p``.

    Raises:
        ValueError: If shapes disagree.
    """
    similarity = similarity_map(student, teacher.detach())
    weight = position_weight(student, valid, consensus_weight(similarity))
    return weighted_mean(1 - similarity, weight, avg_factor)


def divergence_repulsion(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """Push the teacher away from the student, the more so where they differ already.

    ``L_di = sum_valid d_p cos(sg fs_p, ft_p) / sum_valid d_p``. Gradient reaches the teacher
    only. It is no divergence: as the teacher comes near the student the weights vanish on
    both sides of the fraction, the loss tends to 1 and its gradient to 0.

    Args:
        student: (B, C, h, w), detached here.
        teacher: (B, C, h, w).
        valid: Boolean (B, h, w); the other positions do not count.
        avg_factor: The divisor in place of ``sum_valid d_p``.

    Raises:
        ValueError: If shapes disagree.
    """
    similarity = similarity_map(student.detach(), teacher)
    weight = position_weight(student, valid, divergence_weight(similarity))
    return weighted_mean(similarity, weight, avg_factor)


def cosine_distance(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``mean_valid (1 - cos(fs_p, sg ft_p))``: the unweighted pull that fits a projection.

    Divided by the number of valid positions. Gradient reaches ``student`` only.

    Raises:
        ValueError: If shapes disagree.
    """
    similarity = similarity_map(student, teacher.detach())
    return weighted_mean(1 - similarity, position_weight(student, valid), avg_factor)


def center_over_classes(logits: Tensor) -> Tensor:
    """Logits (B, K, h, w) minus their mean over classes, in float32.

    Softmax ignores a constant per pixel and the cosine does not: centring makes both
    look at the same thing.
    """
    logits = logits.float()
    return logits - logits.mean(dim=1, keepdim=True)
