"""Convolutions in channels_last, which many devices compute faster."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmseg_adm.registry import HOOKS

# Channels that oneDNN computes at a time, with AVX-512; with AVX2 8.
BLOCK = 16


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Lays out all weights with the channels last, frozen members' too.

    A convolution with such weights computes, and returns, maps of that layout; images follow in
    the first one. Values are the same up to the order of sums. Depthwise convolutions on a CPU and
    tensor cores of GPUs, under mixed precision, are made for it.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """After weights were drawn, which is done in the order of the memory.

        Raises:
            ValueError: On a CPU, if a layer is one whose gradient oneDNN writes past its buffer.
        """
        use_channels_last(runner.model)

    def before_test(self, runner: Runner) -> None:
        """Likewise."""
        runner.model.to(memory_format=torch.channels_last)


def use_channels_last(model: Any) -> None:
    """Lay out all weights with the channels last, in place, for training.

    Raises:
        ValueError: As :func:`check_narrow_strides`, on a CPU.
    """
    if not torch.cuda.is_available():
        check_narrow_strides(model)
    model.to(memory_format=torch.channels_last)


def check_narrow_strides(model: nn.Module) -> None:
    """Refuse what would corrupt memory (github.com/uxlfoundation/oneDNN/issues/6035).

    Raises:
        ValueError: If a 1x1 convolution with a stride reads fewer channels than a block holds.
    """
    for name, layer in model.named_modules():
        if (
            isinstance(layer, nn.Conv2d)
            and layer.kernel_size == (1, 1)
            and max(layer.stride) > 1
            and layer.in_channels < BLOCK
        ):
            raise ValueError(
                f'channels_last on a CPU: the 1x1 convolution {name} has a stride and reads '
                f'{layer.in_channels} channels; below {BLOCK} the gradient of oneDNN corrupts '
                'memory. Train without --channels-last, or a wider network'
            )
