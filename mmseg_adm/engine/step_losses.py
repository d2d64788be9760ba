"""The losses of a training step, on the host before the optimizer steps."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from .host_copy import HostCopy

TOTAL = 'loss'


class StepLosses:
    """What a step has lost, for one wait of the host.

    The losses are copied while the device goes on with the backward pass, so that who reads them
    waits for the forward pass alone, and once a step. MMEngine, which waits for each of them when
    the step is over, can be given what was read.

    Args:
        shared: Whether :meth:`finite` asks the losses of all processes; it takes them one
            all-reduce of a number, on the device.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared
        self.clear()

    def clear(self) -> None:
        """Forget the step."""
        self._names: tuple[str, ...] = ()
        self._copied: HostCopy | None = None
        self._read: list[float] | None = None

    @torch.no_grad()
    def take(self, model: Any, inputs: object, losses: Any) -> None:
        """Copy what ``model`` returned; its forward hook."""
        if not (model.training and isinstance(losses, dict)):
            return
        # As they are summed and logged.
        _, named = model.parse_losses(losses)
        values = [value.detach().float() for value in named.values()]
        wrong = (~named[TOTAL].detach().isfinite()).float()
        if self.shared:
            all_reduce(wrong, op='max')
        self._names = tuple(named)
        self._copied, self._read = HostCopy(torch.stack([*values, wrong])), None

    def values(self) -> dict[str, float]:
        """Every logged value by name; none before the first step."""
        return dict(zip(self._names, self._host(), strict=False))

    def on_host(self) -> dict[str, Tensor]:
        """The same as tensors of no dimension on the host, for hooks that take them so."""
        self._host()
        return (
            {}
            if self._copied is None
            else dict(zip(self._names, self._copied.values, strict=False))
        )

    def finite(self) -> bool:
        """Whether the total is finite, and so each term: those of all processes, if shared."""
        return not any(self._host()[-1:])

    def _host(self) -> list[float]:
        if self._read is None:
            self._read = [] if self._copied is None else self._copied.wait()
        return self._read
