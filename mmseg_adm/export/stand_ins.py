"""Modules that trace wrongly or not at all, and what computes the same and does trace."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.backbones.swin import ShiftWindowMSA
from mmseg.models.utils import Upsample
from torch import Tensor, nn


class MatrixAveragePool(nn.Module):
    """``AdaptiveAvgPool2d`` as two matrix products, exact for every size.

    ONNX has no such pooling. PyTorch's exporter lays the bins out for the sizes of the example,
    also where sizes are dynamic: the graph then averages other pixels, or fails, at any other.

    Args:
        output_size: Bins along height and width; ``None`` keeps the size.
    """

    def __init__(self, output_size: int | tuple[int | None, int | None]) -> None:
        super().__init__()
        self.output_size = (
            output_size if isinstance(output_size, tuple) else (output_size, output_size)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Pool (N, C, H, W) to (N, C, bins, bins)."""
        height, width = features.shape[-2:]
        rows, columns = self.output_size
        if rows is not None:
            features = pooling_matrix(height, rows, features) @ features
        if columns is not None:
            features = features @ pooling_matrix(width, columns, features).T
        return features


def pooling_matrix(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): row i averages from floor(i L / bins) up to, without, ceil((i+1) L / bins).

    Bins overlap where ``length`` is no multiple of them, and repeat where it is smaller.
    """
    index = torch.arange(bins, device=like.device).unsqueeze(1)
    start = index * length // bins
    end = ((index + 1) * length + bins - 1) // bins
    position = torch.arange(length, device=like.device)
    inside = (position >= start) & (position < end)
    return inside.to(like.dtype) / (end - start).to(like.dtype)


class ScaledUpsample(nn.Module):
    """mmseg's ``Upsample`` by a factor, whose ``int(size * factor)`` would trace as a number.

    Args:
        upsample: The module that this one stands in for.
    """

    def __init__(self, upsample: Any) -> None:
        super().__init__()
        # Times a whole factor, sizes are whole already.
        self.factor = int(upsample.scale_factor)
        self.mode = upsample.mode
        self.align_corners = upsample.align_corners

    def forward(self, features: Tensor) -> Tensor:
        """Enlarge (N, C, H, W) to (N, C, factor H, factor W)."""
        size = [length * self.factor for length in features.shape[-2:]]
        return F.interpolate(features, size, None, self.mode, self.align_corners)


def join_windows(window_size: int, windows: Tensor, height: int, width: int) -> Tensor:
    """Swin's ``window_reverse``, whose ``int(...)`` of the batch size would trace as a number.

    Args:
        window_size: Height and width of a window.
        windows: (windows * N, window_size, window_size, C).
        height: A multiple of ``window_size``, in pixels.
        width: The same.

    Returns:
        (N, height, width, C).
    """
    channels = windows.shape[-1]
    rows, columns = height // window_size, width // window_size
    grid = windows.view(-1, rows, columns, window_size, window_size, channels)
    return grid.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, channels)


def traceable(network: nn.Module) -> nn.Module:
    """A copy that computes the same, and whose graph does so for other batches and sizes too."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if (stand_in := _stand_in(child)) is not None:
                setattr(module, name, stand_in)
        if isinstance(module, ShiftWindowMSA):
            module.window_reverse = partial(join_windows, module.window_size)
    return network


def _stand_in(module: Any) -> nn.Module | None:
    if isinstance(module, nn.AdaptiveAvgPool2d):
        bins: Any = module.output_size
        # A pool of one bin is a mean, which ONNX has.
        return None if bins in (1, (1, 1)) else MatrixAveragePool(bins)
    if isinstance(module, Upsample) and not module.size and _is_whole(module.scale_factor):
        return ScaledUpsample(module)
    return None


def _is_whole(factor: Any) -> bool:
    return isinstance(factor, float) and factor.is_integer()
