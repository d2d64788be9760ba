"""What the device has computed, on the host without stopping the device."""

from __future__ import annotations

import torch
from torch import Tensor


class HostCopy:
    """Numbers on their way to the host, while the device goes on."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.to('cpu', non_blocking=True)
        self.event = torch.cuda.Event() if values.is_cuda else None
        if self.event is not None:
            self.event.record()

    def wait(self) -> list[float]:
        """They, once they are there."""
        if self.event is not None:
            self.event.synchronize()
        return self.values.tolist()
