"""What every loss here shares: shape checks, resizing and the divisor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_pair(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> None:
    """Raise ``ValueError`` unless both maps are (B, C, h, w) and ``valid`` is (B, h, w)."""
    if student.dim() != 4 or student.shape != teacher.shape:
        raise ValueError(
            'student and teacher must both be (B, C, h, w) and of equal shape, '
            f'got {tuple(student.shape)} and {tuple(teacher.shape)}: '
            'resize or project one of them first'
        )
    if valid is not None:
        check_valid(valid, student)


def check_positions(student: Tensor, teacher: Tensor, valid: Tensor | None = None) -> None:
    """As :func:`check_pair`, for losses that let the widths differ."""
    shapes = [(len(maps), *maps.shape[-2:]) for maps in (student, teacher)]
    if student.dim() != 4 or teacher.dim() != 4 or shapes[0] != shapes[1]:
        raise ValueError(
            'student and teacher must both be (B, C, h, w), with equal B, h and w, '
            f'got {tuple(student.shape)} and {tuple(teacher.shape)}: resize one of them first'
        )
    if valid is not None:
        check_valid(valid, student)


def check_labels(maps: Tensor, labels: Tensor) -> None:
    """Raise ``ValueError`` unless ``labels`` are (B, h, w), one for each position of ``maps``."""
    expected = (maps.shape[0], *maps.shape[-2:])
    if maps.dim() != 4 or tuple(labels.shape) != expected:
        raise ValueError(
            f'expected maps (B, C, h, w) with labels (B, h, w), got {tuple(maps.shape)} and '
            f'{tuple(labels.shape)}: resize the labels first'
        )


def check_valid(valid: Tensor, reference: Tensor) -> None:
    """Raise ``ValueError`` unless ``valid`` is a boolean (B, h, w) mask of ``reference``."""
    expected = (reference.shape[0], *reference.shape[-2:])
    if valid.dtype != torch.bool or tuple(valid.shape) != expected:
        raise ValueError(
            f'valid must be a boolean mask of shape {expected}, '
            f'got {valid.dtype} of shape {tuple(valid.shape)}'
        )


def weighted_mean(values: Tensor, weight: Tensor, avg_factor: Tensor | float | None) -> Tensor:
    """``sum(weight * values) / avg_factor``, a differentiable zero where the divisor is zero.

    Args:
        values: Any shape, float32.
        weight: The same shape; zero excludes a position.
        avg_factor: The divisor, by default ``sum(weight)``. A distributed caller passes
            ``all_reduce(sum) / world_size``, so that averaging the gradients over ranks
            gives the gradient of the mean over the joined batch.

    Raises:
        ValueError: If the shapes differ: a broadcast weight would be summed once and used
            many times.
    """
    if values.shape != weight.shape:
        raise ValueError(
            f'values and weight must be of equal shape, got {tuple(values.shape)} and '
            f'{tuple(weight.shape)}'
        )
    total = (torch.where(weight == 0, torch.zeros_like(values), values) * weight).sum()
    divisor = weight.sum() if avg_factor is None else avg_factor
    divisor = torch.as_tensor(divisor, dtype=total.dtype, device=total.device)
    return total / torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def mask_of(valid: Tensor | None, reference: Tensor) -> Tensor:
    """``valid`` as a float32 weight (B, h, w); ones where no mask is given."""
    if valid is None:
        return torch.ones_like(reference[:, 0], dtype=torch.float32)
    return valid.float()


def resize(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear resizing of (B, C, h, w) with ``align_corners=False``; no copy if it fits."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=list(size), mode='bilinear', align_corners=False)
