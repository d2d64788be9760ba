"""A data stream that depends on the seed and the position alone, and can be skipped into.

MMEngine's own sampler and workers draw from random states that no checkpoint holds, so a
resumed run sees other crops than the uninterrupted one. Here position n of the stream names
one image and one augmentation, whoever loads it: any number of workers gives the same data.
"""

from __future__ import annotations

import copy
import operator
import random
from collections.abc import Iterator
from itertools import count, islice, takewhile
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.dataset import Compose
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset, Sampler

from mmseg_adm.registry import DATA_SAMPLERS, DATASETS

from .checks import plain_datasets


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
    """Seeded and skippable; each process reads every world-size-th position.

    Endless, as ``IterBasedTrainLoop`` needs it; where the loop counts epochs,
    :class:`~mmseg_adm.engine.DataStreamHook` lets each of them end.

    Args:
        dataset: What is sampled, a :class:`StreamDataset`.
        seed: The run's seed, which MMEngine passes in; ``None`` draws one.
        shuffle: Permute the images anew in each epoch.

    Raises:
        ValueError: If the data set is empty, or another one, which cannot be read by positions.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None, shuffle: bool = True) -> None:
        if not isinstance(dataset, StreamDataset):
            raise ValueError(
                f'mmseg_adm.StreamSampler yields positions that {type(dataset).__name__} cannot '
                "read: set train_dataloader.dataset=dict(type='mmseg_adm.StreamDataset', "
                'dataset=dict(...)) with the data set inside'
            )
        self.size = len(dataset)
        if not self.size:
            raise ValueError(
                'the training set is empty: look at its data_root, data_prefix and img_suffix'
            )
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.skipped = 0
        self.epoch: int | None = None

    def __len__(self) -> int:
        """How many samples of an epoch are this process's; all have as many."""
        return -(-self.size // self.world_size)

    def skip(self, num_samples: int) -> None:
        """Start so many of this process's samples further on; onedl's train loop calls it."""
        self.skipped += num_samples

    def read_epoch(self, epoch: int) -> None:
        """Yield the samples of this epoch alone when iterated next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[StreamPosition]:
        if self.epoch is None:
            return self._positions(self.skipped * self.world_size, self.size)
        length = len(self) * self.world_size
        return islice(self._positions(self.epoch * length, length), len(self))

    def _positions(self, start: int, length: int) -> Iterator[StreamPosition]:
        """From ``start`` on; an epoch of more positions than images repeats its first ones."""
        epoch, order = -1, np.arange(self.size)
        for position in count(start + self.rank, self.world_size):
            if self.shuffle and position // length != epoch:
                epoch = position // length
                order = np.random.default_rng([self.seed, epoch]).permutation(self.size)
            seed = np.random.SeedSequence([self.seed, position]).generate_state(1)
            yield StreamPosition(int(order[position % length % self.size]), int(seed[0]))


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

    By an integer, as tools that browse a data set read it, it gives what the data set inside does:
    an augmentation drawn anew.

    Args:
        dataset: The data set, or its config.
        cache: Keep what the leading ``Load...`` transforms return, decoded images and labels,
            in the memory of each worker; also of data sets inside wrappers. The data are the same.

    Raises:
        ValueError: If ``cache`` is set, and no data set has a pipeline that loads.
    """

    def __init__(self, dataset: dict | Dataset, cache: bool = False) -> None:
        self.dataset: Any = (
            MMENGINE_DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        )
        if cache:
            self._remember_loads()

    def _remember_loads(self) -> None:
        # Of a concatenation the same data set may be a part twice.
        pipelines = {id(each): each.pipeline for each in plain_datasets(self.dataset)
                     if isinstance(each.pipeline, Compose)}  # fmt: skip
        if not pipelines:
            raise ValueError(
                f'cache needs a data set with a pipeline, not {type(self.dataset).__name__}: set '
                'cache=False'
            )
        for pipeline in pipelines.values():
            transforms = pipeline.transforms
            names = [type(transform).__name__ for transform in transforms]
            loads = len(list(takewhile(lambda name: name.startswith('Load'), names)))
            pipeline.transforms = [_Remembered(transforms[:loads]), *transforms[loads:]]

    @property
    def metainfo(self) -> dict:
        """Classes and palette of the data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Read the annotation list; MMEngine calls it before training."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, position: StreamPosition | int) -> dict:
        if isinstance(position, StreamPosition):
            seed_everything(position.seed)
            return self.dataset[position.image]
        return self.dataset[operator.index(position)]
