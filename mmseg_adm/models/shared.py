"""What a bridge shares with its teacher."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class SharedModule(nn.Module):
    """Stands in a bridge for a module of the frozen teacher that both share.

    While the taps record, it keeps what the teacher's module returned and returns that; so the
    shared stages run once a step. Without it (evaluation of the bridge alone) it runs them.

    Args:
        module: The teacher's.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Not a child: its weights are neither trained nor saved here.
        self._shared = (module,)
        self.recording = False
        self._kept: Any = None
        module.register_forward_hook(self._keep)

    def __deepcopy__(self, memo: dict) -> SharedModule:
        """Share it with an averaged copy of the bridge, as the frozen member itself is shared."""
        return self

    @property
    def shared(self) -> nn.Module:
        """The teacher's module."""
        return self._shared[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the teacher's module returned in this step, else what it returns now."""
        if self._kept is not None:
            return self._kept
        with torch.no_grad():
            return self.shared(*args, **kwargs)

    def clear(self) -> None:
        """Release what was kept."""
        self._kept = None

    def _keep(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        if self.recording:
            self._kept = output


def input_channels(network: nn.Module) -> int:
    """Of the images that a network takes."""
    for module in network.modules():
        # The first layers of a bridge are its teacher's.
        if isinstance(module, SharedModule):
            return input_channels(module.shared)
        if isinstance(module, nn.Conv2d):
            return module.in_channels
    raise ValueError(f'{type(network).__name__} has no convolution')
