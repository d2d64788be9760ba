"""What a forward pass costs."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from .bridge import SharedModule


def count_flops(network: nn.Module, crop: tuple[int, int], auxiliary: bool = False) -> float | None:
    """Multiply-adds on one image, as mmseg's ``get_flops`` counts them.

    A bridge is counted without what it shares with its teacher.

    Args:
        network: A segmentor; it is left in evaluation mode.
        crop: (H, W) of the image.
        auxiliary: Whether its auxiliary heads run too, as in training.

    Returns:
        ``None`` if it cannot be traced.
    """
    device = next(network.parameters()).device
    images = torch.zeros(1, input_channels(network), *crop, device=device)
    traced = _AllHeads(network) if auxiliary else network
    try:
        with torch.no_grad():
            analyzer = FlopAnalyzer(traced.eval(), (images,))
            analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            shared = [name for name, module in traced.named_modules()
                      if isinstance(module, SharedModule)]  # fmt: skip
            by_module = analyzer.by_module()
            return float(analyzer.total() - sum(by_module[name] for name in shared))
    except Exception:  # tracing fails on what it has no rule for: the reader then says so
        return None


def input_channels(network: nn.Module) -> int:
    """Of the images that a network takes."""
    for module in network.modules():
        # The first layers of a bridge are its teacher's.
        if isinstance(module, SharedModule):
            return input_channels(module.shared)
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError(f'{type(network).__name__} has no convolution')


class _AllHeads(nn.Module):
    """A segmentor whose forward pass runs the auxiliary heads too."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list:
        heads = self.network.auxiliary_head if self.network.with_auxiliary_head else []
        heads = [heads] if isinstance(heads, BaseDecodeHead) else heads
        maps: list = []
        last = self.network.neck if self.network.with_neck else self.network.backbone
        handle = last.register_forward_hook(lambda module, inputs, output: maps.append(output))
        outputs = [self.network(images, mode='tensor')]
        handle.remove()
        return [*outputs, *(head(maps[0]) for head in heads)]
