"""Weights that are numbers, told from those that are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# How many names a message holds.
NAMED = 3


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of those that hold NaN or infinity; waits for each device once."""
    by_device: dict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            by_device[tensor.device][name] = tensor.isfinite().all()
    wrong = []
    for finite in by_device.values():
        found = torch.stack(list(finite.values())).tolist()
        wrong += [name for name, good in zip(finite, found, strict=True) if not good]
    return wrong


def check_finite(weights: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with NaN or infinity.

    Args:
        weights: By name.
        source: What the message calls the file.

    Raises:
        ValueError: With the first names.
    """
    if wrong := not_finite(weights):
        raise ValueError(
            f'{source} holds weights that are not finite (NaN or infinite): {first_of(wrong)}. '
            'They predict nothing: take a checkpoint of an earlier iteration'
        )


def first_of(names: Sequence[str]) -> str:
    """The first of ``names``, and how many more there are."""
    more = f' and {len(names) - NAMED} more' if len(names) > NAMED else ''
    return ', '.join(names[:NAMED]) + more
