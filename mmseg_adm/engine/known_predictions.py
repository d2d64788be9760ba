"""What a frozen member has predicted once, kept for the validations to come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

MIB = 2**20


class KnownPrediction(NamedTuple):
    """What came of a batch.

    Attributes:
        results: What each metric has noted of it.
        label_maps: (H, W) by image, on the host; none where nobody compares them.
    """

    results: list[list]
    label_maps: list[Tensor]


class KnownPredictions:
    """Predictions of frozen members, found again by what weights and batch hold.

    Not by a place in the data set: a set that is shuffled, sampled, augmented or another one is
    predicted as it is now. Nothing is saved; each process keeps what it has predicted itself.

    Args:
        limit: How many bytes are kept; what goes beyond is predicted each time.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._known: dict[str, dict[bytes, KnownPrediction]] = {}
        self._weights: dict[str, bytes] = {}
        self._said = False

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """Forget what a member has predicted with other weights or statistics, or in training."""
        for name, network in networks.items():
            tensors = [*network.parameters(), *network.buffers()]
            weights = fingerprint([[each.training for each in network.modules()], tensors])
            if self._weights.get(name) != weights:
                self._weights[name] = weights
                self.size -= sum(map(_bytes, self._known.get(name, {}).values()))
                self._known[name] = {}

    def find(self, key: bytes) -> dict[str, KnownPrediction]:
        """By member, what is known of the batch with this :func:`fingerprint`."""
        return {name: known[key] for name, known in self._known.items() if key in known}

    def keep(self, name: str, key: bytes, prediction: KnownPrediction) -> None:
        """Keep a member's prediction, if there is room."""
        size = _bytes(prediction)
        if self.size + size <= self.limit:
            self._known[name][key] = prediction
            self.size += size
        elif not self._said:
            self._said = True
            print_log(
                f"'{name}' is frozen, and predicts anew at every validation what goes beyond "
                f'val_cfg.cache_mib={self.limit // MIB}',
                logger='current',
            )


def small_label_map(label_map: Tensor, classes: int) -> Tensor:
    """``label_map`` (H, W) on the host, a byte a pixel, or two where the classes need them."""
    return label_map.to('cpu', torch.uint8 if classes <= 256 else torch.int16)


def fingerprint(value: Any) -> bytes:
    """SHA-256 of all that a nested value holds: tensors, arrays, samples and their meta."""
    digest = hashlib.sha256()
    for leaf in _leaves(value):
        if isinstance(leaf, Tensor):
            digest.update(f'{leaf.dtype}{tuple(leaf.shape)}'.encode())
            leaf = leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        elif not isinstance(leaf, np.ndarray):
            leaf = repr(leaf).encode()
        digest.update(leaf.tobytes() if isinstance(leaf, np.ndarray) else leaf)
    return digest.digest()


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseDataElement):
        value = dict(value.all_items())
    if isinstance(value, Mapping):
        value = [each for item in value.items() for each in item]
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        yield len(value)
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _bytes(value: Any) -> int:
    return sum(getattr(leaf, 'nbytes', 0) for leaf in _leaves(value))
