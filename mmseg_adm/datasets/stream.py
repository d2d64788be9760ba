"""A data stream that depends on the seed and the position alone, and can be skipped into.

MMEngine's own sampler and workers draw from random states that no checkpoint holds, so a
resumed run sees other crops than the uninterrupted one. Here position n of the stream names
one image and one augmentation, whoever loads it: any number of workers gives the same data.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset, Sampler

from mmseg_adm.registry import DATA_SAMPLERS, DATASETS


class StreamPosition(NamedTuple):
    """What the sampler asks the data set for."""

    image: int
    seed: int


def seed_everything(*keys: int) -> None:
    """Seed ``random``, ``numpy`` and ``torch`` from a tuple of keys."""
    words = np.random.SeedSequence(keys).generate_state(3, dtype=np.uint32)
    random.seed(int(words[0]))
    np.random.seed(words[1])  # noqa: NPY002 - mmseg's transforms draw from the global state
    torch.manual_seed(int(words[2]))


@DATA_SAMPLERS.register_module()
class StreamSampler(Sampler):
    """Endless, seeded, and skippable; each process reads every world-size-th position.

    Args:
        dataset: What is sampled.
        seed: The run's seed, which MMEngine passes in; ``None`` draws one.
        shuffle: Permute the images anew in each epoch.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None, shuffle: bool = True) -> None:
        self.size = len(dataset)  # type: ignore[arg-type]
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.skipped = 0

    def __len__(self) -> int:
        return self.size

    def skip(self, num_samples: int) -> None:
        """Start so many of this process's samples further on; onedl's train loop calls it."""
        self.skipped += num_samples

    def __iter__(self) -> Iterator[StreamPosition]:
        position = self.skipped * self.world_size + self.rank
        epoch, order = -1, np.arange(self.size)
        while True:
            if self.shuffle and position // self.size != epoch:
                epoch = position // self.size
                order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            seed = np.random.SeedSequence([self.seed, position]).generate_state(1)
            yield StreamPosition(int(order[position % self.size]), int(seed[0]))
            position += self.world_size


@DATASETS.register_module()
class StreamDataset(Dataset):
    """Loads the image at a stream position with the augmentation that belongs to it.

    Args:
        dataset: The data set, or its config.
        cache: Keep what the leading ``Load...`` transforms return, decoded images and labels,
            in the memory of each worker. The data are the same.

    Raises:
        ValueError: If ``cache`` is set for a data set without a pipeline of its own.
    """

    def __init__(self, dataset: dict | Dataset, cache: bool = False) -> None:
        self.dataset: Any = (
            MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        )
        self._loaded: dict[int, dict] = {}
        self._loads = 0
        if cache:
            names = [type(transform).__name__ for transform in self._transforms()]
            self._loads = len(list(takewhile(lambda name: name.startswith('Load'), names)))

    @property
    def metainfo(self) -> dict:
        """Classes and palette of the data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the annotation list; MMEngine calls it before training."""
        self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: StreamPosition) -> dict:
        if not isinstance(position, StreamPosition):
            raise TypeError(
                'StreamDataset is read by stream positions: set '
                "sampler=dict(type='mmseg_adm.StreamSampler') in train_dataloader"
            )
        seed_everything(position.seed)
        if not self._loads:
            return self.dataset[position.image]
        data = copy.deepcopy(self._load(position.image))
        for transform in self._transforms()[self._loads :]:
            data = transform(data)
        return data

    def _load(self, image: int) -> dict:
        if image not in self._loaded:
            data = self.dataset.get_data_info(image)
            for transform in self._transforms()[: self._loads]:
                data = transform(data)
            self._loaded[image] = data
        return self._loaded[image]

    def _transforms(self) -> list:
        pipeline = getattr(self.dataset, 'pipeline', None)
        if pipeline is None or not hasattr(self.dataset, 'get_data_info'):
            raise ValueError(
                f'cache needs a data set with a pipeline, not {type(self.dataset).__name__}: set '
                'cache=False'
            )
        return pipeline.transforms
