"""What a forward pass keeps in memory for the backward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SavedActivations(torch.autograd.graph.saved_tensors_hooks):
    """Counts, inside a ``with`` block, the bytes that autograd saves, each storage once.

    Weights and buffers, which are there anyway, don't count.

    Args:
        model: Whose weights these are.
    """

    def __init__(self, model: nn.Module) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._resident = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._sizes: dict[int, int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """The sum."""
        return sum(self._sizes.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (address := storage.data_ptr()) not in self._resident:
            self._sizes[address] = max(storage.nbytes(), self._sizes.get(address, 0))
        return tensor
