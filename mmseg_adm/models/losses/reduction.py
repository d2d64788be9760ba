"""What every loss here shares: shape checks, resizing and the divisor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Raise ``ValueError`` unless both maps are (B, C, h, w) and of equal shape."""
    if student.dim() != 4 or student.shape != teacher.shape:
        raise ValueError(
            'student and teacher must both be (B, C, h, w) and of equal shape, '
            f'got {tuple(student.shape)} and {tuple(teacher.shape)}: '
            'resize or project one of them first'
        )


def check_positions(student: Tensor, teacher: Tensor) -> None:
    """As :func:`check_pair`, for losses that let the widths differ."""
    shapes = [(len(maps), *maps.shape[-2:]) for maps in (student, teacher)]
    if student.dim() != 4 or teacher.dim() != 4 or shapes[0] != shapes[1]:
        raise ValueError(
            'student and teacher must both be (B, C, h, w), with equal B, h and w, '
            f'got {tuple(student.shape)} and {tuple(teacher.shape)}: resize one of them first'
        )


def check_labels(maps: Tensor, labels: Tensor) -> None:
    """Raise ``ValueError`` unless ``labels`` are (B, h, w), one for each position of ``maps``."""
    expected = (maps.shape[0], *maps.shape[-2:])
    if maps.dim() != 4 or tuple(labels.shape) != expected:
        raise ValueError(
            f'expected maps (B, C, h, w) with labels (B, h, w), got {tuple(maps.shape)} and '
            f'{tuple(labels.shape)}: resize the labels first'
        )


def position_weight(
    maps: Tensor, valid: Tensor | None = None, weight: Tensor | None = None
) -> Tensor:
    """What each position counts: (B, h, w) in float32, without gradient.

    Args:
        maps: (B, C, h, w).
        valid: Boolean (B, h, w): other positions count zero. By default all count.
        weight: (B, h, w), detached here; by default one.

    Raises:
        ValueError: If a shape is another, or ``valid`` no boolean mask.
    """
    expected = (maps.shape[0], *maps.shape[-2:])
    if valid is not None and (valid.dtype != torch.bool or tuple(valid.shape) != expected):
        raise ValueError(
            f'valid must be a boolean mask of shape {expected}, '
            f'got {valid.dtype} of shape {tuple(valid.shape)}'
        )
    if weight is None:
        weight = torch.ones(expected, device=maps.device)
    elif tuple(weight.shape) != expected:
        raise ValueError(f'weight must be of shape {expected}, got {tuple(weight.shape)}')
    weight = weight.detach().float()
    return weight if valid is None else weight * valid


def weighted_mean(
    values: Tensor, weight: Tensor, avg_factor: Tensor | float | None = None
) -> Tensor:
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
    return divided(total, weight.sum() if avg_factor is None else avg_factor)


def divided(total: Tensor, divisor: Tensor | float) -> Tensor:
    """``total / divisor``, a differentiable zero where the divisor is zero."""
    if not isinstance(divisor, Tensor):
        # On a GPU, to make a tensor of it would be to wait for the device.
        return total / (divisor if divisor != 0 else 1)
    return total / torch.where(divisor == 0, torch.ones_like(divisor), divisor)


def resize(maps: Tensor, size: tuple[int, ...], align_corners: bool = False) -> Tensor:
    """Bilinear resizing of (B, C, h, w); no copy if it fits."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps, size=list(size), mode='bilinear', align_corners=align_corners)
