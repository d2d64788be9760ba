"""The data: whether they can be read and fit the networks, and a few images to try."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from mmengine.dataset import BaseDataset, InfiniteSampler, pseudo_collate
from mmengine.registry import DATA_SAMPLERS
from mmengine.structures import PixelData
from mmengine.utils import apply_to
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_adm.config.registered import class_of
from mmseg_adm.datasets.checks import (
    check_classes,
    check_images,
    check_labels,
    check_variety,
    left_out,
    plain_datasets,
)
from mmseg_adm.datasets.stream import StreamDataset, StreamPosition, StreamSampler

from .report import Report

# Of each set, decoded with their labels.
DECODED = 8
# Of a training step at most: batch statistics need two.
IMAGES = 2
# Of an image on which gradients are tried; larger ones are scaled down to about that.
MAX_PIXELS = 256 * 256
MULTIPLE = 32


def check_data(
    model: nn.Module | None, datasets: Mapping[str, Any], label_maps: int, report: Report
) -> None:
    """Classes, palettes, images and labels; a line each.

    Args:
        model: Whose class counts are compared, if there is one.
        datasets: By split; wrapped ones too.
        label_maps: How many label maps of each set are searched for values out of range.
        report: Takes the lines.
    """
    plain = {split: plain_datasets(whole) for split, whole in datasets.items()}
    everything = [dataset for each in plain.values() for dataset in each]
    if not everything:
        report.add('data', 'warning', 'not looked at: no data set of the BaseSegDataset kind')
        return
    _check_names(plain, report)
    if model is not None:
        report.check('class counts', _counts, model, everything)
    for split, each in plain.items():
        report.check(f'{split} data', _files, each, label_maps, split, report)
        # In a training DataCheckHook says it.
        for text in filter(None, map(left_out, each if label_maps else ())):
            report.add(f'{split} data', 'warning', text)


def _counts(model: nn.Module, datasets: Sequence[BaseDataset]) -> str:
    for dataset in datasets:
        check_classes(model, dataset)
    return f'{len(datasets[0].metainfo["classes"])} in the data and in every network'


def _files(datasets: Sequence[BaseDataset], label_maps: int, split: str, report: Report) -> str:
    found = []
    for dataset in datasets:
        check_images(dataset, DECODED)
        found.append(check_labels(dataset, label_maps))
    if split == 'train':
        check_variety(found)
    for maps in found:
        if maps.only:
            report.add(f'{split} data', 'warning', str(maps))
    sizes = [len(dataset) for dataset in datasets]
    maps_read = sum(maps.read for maps in found)
    searched = f'; the values of {maps_read} label maps are in range' if maps_read else ''
    absent = ''.join(f'; {maps}' for maps in found if maps.absent and not maps.only)
    images = sum(min(DECODED, size) for size in sizes)
    return f'{images} of {sum(sizes)} images decode, with their labels{searched}{absent}'


def _check_names(plain: Mapping[str, Sequence[BaseDataset]], report: Report) -> None:
    """Compare class names and colors of all sets with those of the first one."""
    sets = [(split, dataset.metainfo) for split, each in plain.items() for dataset in each]
    (first, expected), *others = sets
    classes, colors = expected['classes'], _palette(expected)
    for split, found in others:
        if problem := first_difference(classes, found['classes'], first, split):
            report.add('class names', 'failed', f'{problem}: give both the same metainfo')
            return
        if _palette(found) != colors:
            text = f'{first} and {split} data differ in colors, so their pictures do'
            report.add('palette', 'warning', text)
    if len(colors) != len(classes):
        text = f'{len(colors)} colors for {len(classes)} classes: set metainfo.palette'
        report.add('palette', 'warning', text)
    splits = ' and '.join(dict.fromkeys(split for split, _ in sets))
    report.add('class names', 'ok', f'{splits}: {len(classes)}, from {classes[0]} to {classes[-1]}')


def _palette(metainfo: Mapping) -> list[list[int]]:
    return [[int(value) for value in color] for color in metainfo.get('palette') or []]


def first_difference(
    first: Sequence[str], second: Sequence[str], one: str, other: str
) -> str | None:
    """How two lists of class names differ, ``None`` if they don't but in case."""
    if len(first) != len(second):
        return f'{one} has {len(first)} classes, {other} {len(second)}'
    for index, names in enumerate(zip(first, second, strict=True)):
        if names[0].lower() != names[1].lower():
            order = sorted(map(str.lower, first)) == sorted(map(str.lower, second))
            reason = ' (the same names in another order)' if order else ''
            return f"class {index} is '{names[0]}' in {one} and '{names[1]}' in {other}{reason}"
    return None


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` indices, evenly spread over ``length`` items."""
    return [int(index) for index in np.linspace(0, length - 1, min(count, length))]


def smallest_batch(loader: Mapping, images: int, iterations: int | None, processes: int = 1) -> int:
    """How many images the smallest batch of a training holds, in one process.

    Args:
        loader: The config of its data loader.
        images: How many the data set has.
        iterations: Of the training; ``None`` if it counts epochs.
        processes: Among which the images are dealt out.
    """
    size = loader.get('batch_size') or IMAGES
    own = math.ceil(images / processes)
    ends_an_epoch = iterations is None or iterations * size >= own
    kind = class_of((loader.get('sampler') or {}).get('type'), DATA_SAMPLERS)
    # The stream ends where the loop counts epochs.
    endless = (InfiniteSampler,) if iterations is None else (InfiniteSampler, StreamSampler)
    is_endless = inspect.isclass(kind) and issubclass(kind, endless)
    if loader.get('drop_last') or is_endless or not ends_an_epoch:
        return size
    return own % size or size


def training_samples(dataset: Any, count: int) -> dict:
    """A batch of ``count`` augmented training images, as a data loader would yield it.

    Raises:
        ValueError: If the data set is empty.
    """
    indices = spread(len(dataset), count)
    if not indices:
        raise ValueError('the training set is empty: look at data_root and data_prefix')
    indices = (indices * count)[:count]  # of a set of one image
    stream = isinstance(dataset, StreamDataset)
    return pseudo_collate(
        [dataset[StreamPosition(index, index) if stream else index] for index in indices]
    )


def crop_of(data: dict) -> tuple[int, int]:
    """(H, W) of preprocessed images."""
    images = _images_of(data)
    return images.shape[-2], images.shape[-1]


def count_of(data: dict) -> int:
    """How many preprocessed images there are."""
    return len(_images_of(data))


def _images_of(data: dict) -> Tensor:
    """(B, C, H, W), as one of the members sees them."""
    inputs = data['inputs']
    return next(iter(inputs.values())) if isinstance(inputs, dict) else inputs


def repeated(data: dict, count: int) -> dict:
    """``count`` preprocessed images with their labels: those of ``data``, over and over."""

    def taken(value: Any) -> Any:
        if isinstance(value, dict):  # by member
            return {name: taken(own) for name, own in value.items()}
        indices = [index % len(value) for index in range(count)]
        if isinstance(value, Tensor):
            return value[indices]
        return [copy.deepcopy(value[index]) for index in indices]

    return taken(data)


def reduced(data: dict, pixels: float | None = None) -> dict:
    """Preprocessed images and labels, scaled down if they are larger.

    Args:
        data: What is scaled; where it is small, it is returned as it is.
        pixels: Of an image, about; by default ``MAX_PIXELS``.
    """
    height, width = crop_of(data)
    scale = math.sqrt((pixels or MAX_PIXELS) / (height * width))
    if scale >= 1:
        return data
    size = tuple(max(round(side * scale / MULTIPLE), 2) * MULTIPLE for side in (height, width))

    def scaled(value: Tensor | SegDataSample) -> Tensor | SegDataSample:
        if isinstance(value, Tensor):
            return F.interpolate(value, size, mode='bilinear')
        sample = value.clone()
        for name, field in value.items():
            if isinstance(field, PixelData):
                labels = F.interpolate(field.data[None].float(), size, mode='nearest-exact')[0]
                sample.set_data({name: PixelData(data=labels.to(field.data.dtype))})
        sample.set_metainfo(dict(img_shape=size, pad_shape=size))
        return sample

    return apply_to(data, lambda value: isinstance(value, (Tensor, SegDataSample)), scaled)
