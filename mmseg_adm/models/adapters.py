"""Bringing two feature maps to one width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Projection(nn.Conv2d):
    """A bias-free 1x1 convolution from the student's width to the teacher's, in float32.

    Args:
        in_channels: Width of the map that is projected.
        out_channels: Width that it is brought to.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Project (B, in_channels, h, w)."""
        return self._project(maps, self.weight)

    def held_fixed(self, maps: Tensor) -> Tensor:
        """Project with gradient to ``maps`` and none to the projection itself."""
        return self._project(maps, self.weight.detach())

    @staticmethod
    def _project(maps: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast(maps.device.type, enabled=False):
            return F.conv2d(maps.float(), weight.float())


def match_width(in_channels: int, out_channels: int) -> Projection | None:
    """A projection where the widths differ, ``None`` where nothing is to be learnt."""
    return None if in_channels == out_channels else Projection(in_channels, out_channels)
