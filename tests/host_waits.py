"""How often the host waits for the device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Waits(TorchDispatchMode):
    """Counts the operations after which the host must wait for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        selects = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        waits = ('_local_scalar_dense', 'nonzero', 'masked_select')
        self.count += selects or func.overloadpacket.__name__ in waits
        return func(*args, **(kwargs or {}))
