"""What a forward pass costs."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import Tensor, nn

from .shared import SharedModule, input_channels

# The backward pass takes the gradients of activations and of weights: twice the forward pass.
STEP = 3


def count_flops(network: nn.Module, crop: tuple[int, int], training: bool = False) -> float | None:
    """Multiply-adds on one image, as mmseg's ``get_flops`` counts them.

    A bridge is counted without what it shares with its teacher.

    Args:
        network: A segmentor; it is left in evaluation mode.
        crop: (H, W) of the image.
        training: Of a step of training, forwards and backwards, auxiliary heads included: three
            times the forward pass, but for the layers before the first one that trains. Otherwise
            of the forward pass.

    Returns:
        ``None`` if it cannot be traced.
    """
    device = next(network.parameters()).device
    images = torch.zeros(1, input_channels(network), *crop, device=device)
    if training:
        network.train()  # Backbones freeze their stages there.
    traced = _AllHeads(network) if training else network
    try:
        with torch.no_grad():
            analyzer = FlopAnalyzer(traced.eval(), (images,))
            analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            shared = [name for name, module in traced.named_modules()
                      if isinstance(module, SharedModule)]  # fmt: skip
            by_module = analyzer.by_module()
            total = analyzer.total() - sum(by_module[name] for name in shared)
            if training:
                total = STEP * total - (STEP - 1) * sum(by_module[name] for name in _frozen(traced))
            return float(total)
    except Exception:  # tracing fails on what it has no rule for: the reader then says so
        return None


def seconds_per_image(network: Any, size: tuple[int, int], rounds: int = 10) -> float:
    """Median time in which a segmentor makes a label map of one image, batch 1, after a warm-up.

    Args:
        network: A segmentor; it is left in evaluation mode.
        size: (H, W) of the image.
        rounds: Images that count.
    """
    device = next(network.parameters()).device
    image = torch.zeros(1, input_channels(network), *size, device=device)
    metas = [dict(ori_shape=size, img_shape=size)]
    network.eval()
    times = []
    with torch.inference_mode():
        for _ in range(2 + rounds):
            start = time.perf_counter()
            # Onto the host: a GPU has then done all of it.
            network.encode_decode(image, metas).argmax(1).cpu()
            times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def _frozen(network: nn.Module) -> list[str]:
    """The layers before the first one that trains, in the order in which they are registered."""
    found = []
    for name, module in network.named_modules():
        parameters = list(module.parameters(recurse=False))
        if any(each.requires_grad for each in parameters):
            break
        if parameters:
            found.append(name)
    return found


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
