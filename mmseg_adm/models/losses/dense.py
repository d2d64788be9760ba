"""Where logits meet labels at full size: cross entropies that never hold all of B x K x H x W."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .reduction import divided, resize

# Into how many bands of rows the labels are cut. A band holds about two tensors of its size at
# a time: a sixth of B x K x H x W. More bands save little and cost time.
BANDS = 12


def cross_entropy_sum(
    logits: Tensor, labels: Tensor, weight: Tensor, align_corners: bool = False
) -> Tensor:
    """``sum_p w_p CE_p``, the logits resized to the labels as mmseg's heads do it.

    The one core of all cross entropies here: a mean has ``weight / divisor``, a difference of
    two means the difference of their weights. Computed in float32, band by band, and the
    gradient with it: what stays for the backward pass is as large as the logits. Gradient
    reaches the logits only.

    Args:
        logits: (B, K, h, w).
        labels: (B, H, W), int64; any value where the weight is zero.
        weight: (B, H, W), of any sign, detached here; zero where a pixel does not count.
        align_corners: As the head has it that the logits come from.

    Raises:
        ValueError: If shapes disagree.
    """
    check_logits(logits, labels)
    if weight.shape != labels.shape:
        raise ValueError(
            f'expected one weight for each label, got {tuple(weight.shape)} and '
            f'{tuple(labels.shape)}: resize the weight first'
        )
    train = torch.is_grad_enabled() and logits.requires_grad
    with torch.autocast(logits.device.type, enabled=False):
        return _CrossEntropySum.apply(logits, labels, weight.detach().float(), align_corners, train)


def weighted_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor,
    ignore_index: int = 255,
    avg_factor: Tensor | float | None = None,
    class_weight: Tensor | None = None,
    align_corners: bool = False,
) -> Tensor:
    """``sum_p w_p CE_p / sum_p w_p`` over the labeled pixels.

    Of logits that are no member's own: see ``OwnCrossEntropy`` for those. Gradient reaches the
    logits only.

    Args:
        logits: (B, K, h, w), resized to the labels.
        labels: (B, H, W), int64.
        weight: (B, h', w'), not negative, resized to the labels, detached here.
        ignore_index: Labels that do not count.
        avg_factor: The divisor in place of the sum of the weights over labeled pixels.
        class_weight: (K,): a pixel's weight is multiplied by that of its label.
        align_corners: As the head has it that the logits come from.

    Raises:
        ValueError: If shapes disagree.
    """
    check_logits(logits, labels)
    labeled = labeled_weight(weight, labels, ignore_index, class_weight)
    total = cross_entropy_sum(logits, labels, labeled, align_corners)
    return divided(total, labeled.sum() if avg_factor is None else avg_factor)


def labeled_weight(
    weight: Tensor, labels: Tensor, ignore_index: int = 255, class_weight: Tensor | None = None
) -> Tensor:
    """``weight`` (B, h, w) resized to the labels (B, H, W), zero where nothing is labeled.

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


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ``ValueError`` unless logits are (B, K, h, w) and labels (B, H, W)."""
    if logits.dim() != 4 or labels.dim() != 3 or len(logits) != len(labels):
        raise ValueError(
            'expected logits (B, K, h, w) for labels (B, H, W), got '
            f'{tuple(logits.shape)} and {tuple(labels.shape)}'
        )


class _CrossEntropySum(torch.autograd.Function):
    """The weights are constants: one pass over the bands gives the sum and its gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, weight: Tensor, align_corners: bool, train: bool
    ) -> Tensor:
        total = weight.new_zeros(())
        gradient = torch.zeros_like(logits, dtype=torch.float32) if train else None
        (height, width), (rows, columns) = logits.shape[-2:], labels.shape[-2:]
        across = None
        if width != columns:
            across = interpolation(width, columns, align_corners, logits.device)
        for band in _bands(height, rows, align_corners, logits.device):
            resized = logits[:, :, band.read].float()
            # Where nothing is resized nothing is multiplied: it may be infinite.
            resized = resized if band.down is None else band.down @ resized
            resized = resized if across is None else resized @ across.T
            summed, slope = _band_sum(
                resized, labels[:, band.written], weight[:, band.written], train
            )
            total += summed
            if gradient is not None and slope is not None:
                slope = slope if across is None else slope @ across
                slope = slope if band.down is None else band.down.T @ slope
                gradient[:, :, band.read] += slope
        ctx.gradient, ctx.dtype = gradient, logits.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None, None, None]:
        return (ctx.gradient * above[0]).to(ctx.dtype), None, None, None, None


def _band_sum(
    logits: Tensor, labels: Tensor, weight: Tensor, train: bool
) -> tuple[Tensor, Tensor | None]:
    """``sum_p w_p CE_p`` of one band at full size, and its gradient ``w_p (softmax - onehot)``."""
    weight = weight[:, None]
    # Nor is NaN greater than zero: networks that diverged end in a NaN, not in an index error.
    label = (labels[:, None] * (weight.abs() > 0)).long()
    # By hand, since of many classes the exponentials cost most: they serve both.
    highest = logits.amax(1, keepdim=True)
    exponentials = (logits - highest).exp_()
    summed = exponentials.sum(1, keepdim=True)
    entropy = summed.log() + (highest - logits.gather(1, label))
    # A pixel that does not count may hold anything, and zero times infinity is no zero.
    total = (weight * entropy.masked_fill(weight == 0, 0)).sum()
    if not train:
        return total, None
    return total, exponentials.mul_(weight / summed).scatter_add_(1, label, -weight)


class _Band(NamedTuple):
    """Some rows of the labels, and what they need of the logits.

    Attributes:
        written: Rows at the size of the labels.
        read: The rows of the logits that they are interpolated from.
        down: (written, read), the weights of the interpolation; ``None`` where there is none.
    """

    written: slice
    read: slice
    down: Tensor | None


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _bands(
    height: int, target_height: int, align_corners: bool, device: torch.device
) -> tuple[_Band, ...]:
    """How ``height`` rows of logits become ``target_height`` rows, band by band."""
    # On the CPU, so that no device is waited for.
    weights = interpolation(height, target_height, align_corners, torch.device('cpu'))
    step = max(1, target_height // BANDS)
    bands = []
    for start in range(0, target_height, step):
        rows = weights[start : start + step]
        used = rows.any(dim=0).nonzero()
        read = slice(int(used[0]), int(used[-1]) + 1)
        written = slice(start, start + len(rows))
        same = height == target_height
        bands.append(_Band(written, read, None if same else rows[:, read].to(device)))
    return tuple(bands)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def interpolation(size: int, target: int, align_corners: bool, device: torch.device) -> Tensor:
    """(target, size): the weights by which one axis is resized as mmseg's heads resize it.

    Bilinear interpolation is a product with such a matrix on either side: on a processor, and
    backwards above all, several times faster than the operator. What that makes of an identity are
    its own weights, rounding included.
    """
    identity = torch.eye(size, device='cpu')[None, None]
    return resize(identity, (target, size), align_corners)[0, 0].to(device)
