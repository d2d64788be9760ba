"""What trains: the networks, and what each method reads of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.adapters import Projection
from mmseg_adm.models.flops import count_flops
from mmseg_adm.models.preprocessor import MembersDataPreprocessor
from mmseg_adm.models.shared import input_channels
from mmseg_adm.models.step import DistillationStep

from .report import Member, Method


def describe_members(model: nn.Module, crop: tuple[int, int] | None) -> list[Member]:
    """One row a network, the student first.

    Args:
        model: A distiller or a plain segmentor; not the one that will train: FLOPs are counted
            by running it.
        crop: (H, W) of the training crop; without it FLOPs are not counted.
    """
    networks: dict[str, Any] = {'model': model}
    if isinstance(model, KnowledgeDistiller):
        networks = {name: model.network(name) for name in model.member_names}
    return [
        Member(
            name=name,
            network=_architecture(network),
            role=_role(model, name, network),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            flops=None if crop is None else count_flops(network, crop),
            preprocessing=_preprocessing(model, name, input_channels(network)),
        )
        for name, network in networks.items()
    ]


def _architecture(network: Any) -> str:
    head = network.decode_head
    heads = [type(each).__name__ for each in (head if isinstance(head, nn.ModuleList) else [head])]
    depth = getattr(network.backbone, 'depth', None)
    backbone = type(network.backbone).__name__ + (f'-{depth}' if isinstance(depth, int) else '')
    return ' + '.join([backbone, *heads])


def _role(model: nn.Module, name: str, network: nn.Module) -> str:
    if frozen := getattr(model, 'frozen', {}).get(name):
        return f'frozen, {frozen.dtype}' if frozen.dtype else 'frozen'
    if name in getattr(model, 'averages', {}):
        return 'EMA teacher'
    bridged = getattr(network, 'bridge_of', None)
    return 'trained' if bridged is None else f'trained, bridge on {bridged}'


def _preprocessing(model: Any, name: str, channels: int) -> str:
    preprocessor = model.data_preprocessor
    if isinstance(preprocessor, MembersDataPreprocessor):
        preprocessor = getattr(preprocessor, f'own_{name}', preprocessor.shared)
    if not isinstance(preprocessor, SegDataPreProcessor):
        return type(preprocessor).__name__
    # The two distributions spell it differently.
    names = ('_channel_conversion', 'channel_conversion')
    # mmseg swaps those of three channels alone.
    swapped = channels == 3 and any(getattr(preprocessor, each, False) for each in names)
    steps = ['BGR to RGB' if swapped else 'channels as loaded']
    for option in ('mean', 'std'):
        values = getattr(preprocessor, option, None)
        if values is not None:
            figures = ', '.join(f'{value:g}' for value in values.flatten().tolist())
            steps.append(f'{option} ({figures})')
    return ', '.join(steps)


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
            Method(
                name=name,
                kind=type(method).__name__,
                readings=tuple(_readings(method, step)),
                alignment=(*_projections(method), *_resizes(method, step)),
                parameters=sum(parameter.numel() for parameter in method.parameters()),
                settings=tuple(_settings(method, schedules.get(name, {}))),
            )
            for name, method in model.methods.items()
        ]

    return model.observe(dict(inputs=[image], data_samples=[sample]), read)


def _readings(method: Any, step: DistillationStep) -> list[str]:
    return [
        f'{member}.{point} ' + 'x'.join(map(str, step.read(member, point).shape[1:]))
        for member, points in method.reads().items()
        for point in points
    ]


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


def _settings(method: nn.Module, schedule: Mapping) -> list[str]:
    """Factors of the terms, and when they apply."""
    weights = {option: f'{value:g}' for option, value in vars(method).items()
               if option.endswith('weight') and isinstance(value, float)}  # fmt: skip
    times = {option: value for option, value in schedule.items() if value is not None}
    return [f'{option} {value}' for option, value in (*weights.items(), *times.items())]
