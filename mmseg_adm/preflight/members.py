"""The networks of a run, and what each costs."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.analysis import FlopAnalyzer
from mmseg.models import SegDataPreProcessor
from torch import nn

from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.preprocessor import MembersDataPreprocessor

from .report import Member


def networks_of(model: nn.Module) -> dict[str, Any]:
    """The segmentors of a distiller by name, the student first; a plain one as ``'model'``."""
    if isinstance(model, KnowledgeDistiller):
        return {name: model.network(name) for name in model.member_names}
    return {'model': model}


def describe_members(model: nn.Module, crop: tuple[int, int] | None) -> list[Member]:
    """One row a network.

    Args:
        model: A distiller or a plain segmentor; not the one that will train: FLOPs are counted
            by running it.
        crop: (H, W) of the training crop; without it FLOPs are not counted.
    """
    return [
        Member(
            name=name,
            network=_architecture(network),
            role=_role(model, name, network),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            flops=None if crop is None else _flops(network, crop),
            preprocessing=_preprocessing(model, name),
        )
        for name, network in networks_of(model).items()
    ]


def input_channels(network: nn.Module) -> int:
    """How many channels its images have."""
    return next(each.in_channels for each in network.modules() if isinstance(each, nn.Conv2d))


def _architecture(network: Any) -> str:
    head = network.decode_head
    heads = [type(each).__name__ for each in (head if isinstance(head, nn.ModuleList) else [head])]
    depth = getattr(network.backbone, 'depth', None)
    backbone = type(network.backbone).__name__ + (f'-{depth}' if isinstance(depth, int) else '')
    return ' + '.join([backbone, *heads])


def _role(model: nn.Module, name: str, network: nn.Module) -> str:
    if name in getattr(model, 'frozen', {}):
        return 'frozen'
    if name in getattr(model, 'averages', {}):
        return 'EMA teacher'
    bridged = getattr(network, 'bridge_of', None)
    return 'trained' if bridged is None else f'trained, bridge on {bridged}'


def _flops(network: nn.Module, crop: tuple[int, int]) -> float | None:
    """As mmseg's ``get_flops`` counts them."""
    device = next(network.parameters()).device
    images = torch.zeros(1, input_channels(network), *crop, device=device)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            analyzer = FlopAnalyzer(network, (images,))
            analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            return float(analyzer.total())
    except Exception:  # tracing fails on what it has no rule for: the table then says so
        return None
    finally:
        network.train(was_training)


def _preprocessing(model: Any, name: str) -> str:
    preprocessor = model.data_preprocessor
    if isinstance(preprocessor, MembersDataPreprocessor):
        preprocessor = getattr(preprocessor, f'own_{name}', preprocessor.shared)
    if not isinstance(preprocessor, SegDataPreProcessor):
        return type(preprocessor).__name__
    # The two distributions spell it differently.
    names = ('_channel_conversion', 'channel_conversion')
    swapped = any(getattr(preprocessor, each, False) for each in names)
    steps = ['BGR to RGB' if swapped else 'channels as loaded']
    for option in ('mean', 'std'):
        values = getattr(preprocessor, option, None)
        if values is not None:
            figures = ', '.join(f'{value:g}' for value in values.flatten().tolist())
            steps.append(f'{option} ({figures})')
    return ', '.join(steps)
