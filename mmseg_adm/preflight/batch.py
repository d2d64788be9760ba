"""A few training images, as the networks see them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.structures import PixelData

from mmseg_adm.datasets.stream import StreamDataset, StreamPosition

# Batch statistics need two.
IMAGES = 2
# Of an image on which gradients are tried; larger ones are scaled down to about that.
MAX_PIXELS = 256 * 256
MULTIPLE = 32


def spread(length: int, count: int) -> list[int]:
    """At most ``count`` indices, evenly spread over ``length`` items."""
    return [int(index) for index in np.linspace(0, length - 1, min(count, length))]


def training_samples(dataset: Any) -> dict:
    """A batch of ``IMAGES`` augmented training images, as a data loader would yield it.

    Raises:
        ValueError: If the data set is empty.
    """
    indices = spread(len(dataset), IMAGES)
    if not indices:
        raise ValueError('the training set is empty: look at data_root and data_prefix')
    indices = (indices * IMAGES)[:IMAGES]  # of a set of one image
    stream = isinstance(dataset, StreamDataset)
    return pseudo_collate(
        [dataset[StreamPosition(index, index) if stream else index] for index in indices]
    )


def crop_of(data: dict) -> tuple[int, int]:
    """(H, W) of preprocessed images."""
    inputs = data['inputs']
    maps = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    return maps.shape[-2], maps.shape[-1]


def reduced(data: dict) -> dict:
    """Preprocessed images and labels, scaled down if they are larger than ``MAX_PIXELS``."""
    height, width = crop_of(data)
    scale = math.sqrt(MAX_PIXELS / (height * width))
    if scale >= 1:
        return data
    size = tuple(max(round(side * scale / MULTIPLE), 2) * MULTIPLE for side in (height, width))
    return {
        'inputs': _each(data['inputs'], lambda maps: F.interpolate(maps, size, mode='bilinear')),
        'data_samples': _each(
            data['data_samples'], lambda samples: [_scaled(each, size) for each in samples]
        ),
    }


def _each(by_member: Any, function: Any) -> Any:
    if isinstance(by_member, dict):
        return {name: function(own) for name, own in by_member.items()}
    return function(by_member)


def _scaled(sample: Any, size: tuple[int, ...]) -> Any:
    scaled = sample.clone()
    for name, field in sample.items():
        if isinstance(field, PixelData):
            labels = F.interpolate(field.data[None].float(), size, mode='nearest-exact')[0]
            scaled.set_data({name: PixelData(data=labels.to(field.data.dtype))})
    scaled.set_metainfo(dict(img_shape=size, pad_shape=size))
    return scaled
