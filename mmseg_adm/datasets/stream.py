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


class _Remembered:
    """Transforms whose results are kept by image; they must not draw random numbers."""

    def __init__(self, transforms: list) -> None:
        self.transforms = transforms
        self.results: dict[int, dict] = {}

    def __call__(self, data: dict) -> dict:
        image = data['sample_idx']
        if image not in self.results:
            for transform in self.transforms:
                data = transform(data)
            self.results[image] = data
        # What follows changes it in place.
        return copy.deepcopy(self.results[image])


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
        if cache:
            self._remember_loads()

    def _remember_loads(self) -> None:
        pipeline = getattr(self.dataset, 'pipeline', None)
        if pipeline is None:
            raise ValueError(
                f'cache needs a data set with a pipeline, not {type(self.dataset).__name__}: set '
                'cache=False'
            )
        transforms = pipeline.transforms
        names = [type(transform).__name__ for transform in transforms]
        count = len(list(takewhile(lambda name: name.startswith('Load'), names)))
        pipeline.transforms = [_Remembered(transforms[:count]), *transforms[count:]]

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
        return self.dataset[position.image]
