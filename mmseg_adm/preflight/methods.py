"""What each method reads, and how it brings the maps to one width and size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.adapters import Projection
from mmseg_adm.models.step import DistillationStep

from .members import input_channels
from .report import Method, Reading


def describe_methods(
    model: KnowledgeDistiller, crop: tuple[int, int], schedules: Mapping
) -> list[Method]:
    """One row a method, its maps as one image of the training crop makes them.

    Args:
        model: Not the one that will train: its methods are run.
        crop: (H, W) of the training crop.
        schedules: Of ``DistillScheduleHook``, by method.
    """
    sample = SegDataSample(
        gt_sem_seg=PixelData(data=torch.zeros(1, *crop, dtype=torch.int64)),
        metainfo=dict(img_shape=crop, ori_shape=crop, pad_shape=crop),
    )
    image = torch.randint(0, 256, (input_channels(model), *crop), dtype=torch.uint8)

    def read(step: DistillationStep) -> list[Method]:
        return [
            _describe(name, method, step, schedules.get(name, {}))
            for name, method in model.methods.items()
        ]

    return model.observe(dict(inputs=[image], data_samples=[sample]), read)


def _describe(name: str, method: Any, step: DistillationStep, schedule: Mapping) -> Method:
    readings = []
    for member, points in method.reads().items():
        for point in points:
            channels, height, width = step.read(member, point).shape[1:]
            readings.append(Reading(member, point, (channels, height, width)))
    return Method(
        name=name,
        kind=type(method).__name__,
        readings=tuple(readings),
        alignment=(*_projections(method), *_resizes(method, step)),
        parameters=sum(parameter.numel() for parameter in method.parameters()),
        settings=_settings(method, schedule),
    )


def _projections(method: nn.Module) -> list[str]:
    return [
        f'{each.in_channels} -> {each.out_channels} by 1x1, {each.weight.numel()} parameters'
        for each in method.modules()
        if isinstance(each, Projection)
    ]


def _resizes(method: nn.Module, step: DistillationStep) -> list[str]:
    """Run the method and see which sizes it asks the step to match."""
    found: dict[str, None] = {}

    def match_size(maps: Tensor, like: Tensor) -> Tensor:
        (height, width), (taller, wider) = maps.shape[-2:], like.shape[-2:]
        if (height, width) != (taller, wider):
            found[f'{height}x{width} resized to {taller}x{wider}'] = None
        return DistillationStep.match_size(maps, like)

    watched: Any = copy.copy(step)
    watched.match_size = match_size
    method(watched)
    return list(found)


def _settings(method: nn.Module, schedule: Mapping) -> tuple[str, ...]:
    """Factors of the terms, and when they apply."""
    weights = [
        f'{option} {value:g}'
        for option, value in vars(method).items()
        if option.endswith('weight') and isinstance(value, float)
    ]
    times = [f'{option} {value}' for option, value in schedule.items() if value is not None]
    return (*weights, *times)
