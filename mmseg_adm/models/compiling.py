"""``torch.compile`` for networks that are read in the middle."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmseg.models import BaseSegmentor
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from torch import nn

from mmseg_adm.mistakes import words_of

from .distiller import KnowledgeDistiller
from .shared import SharedModule

# Their forward is called by its name, or there is none: what is compiled is what is called.
NOT_CALLED = (BaseSegmentor, BaseDecodeHead, nn.ModuleList, nn.ModuleDict)


def compile_networks(model: KnowledgeDistiller, options: Mapping[str, Any]) -> dict[str, list[str]]:
    """Compile, in place, the largest parts of each member in which nobody reads.

    A tap is a hook, at which a compiled graph would end: so parts end there to begin with, and
    hooks, losses and methods run as they do without. State dicts and copies stay as they are.

    Args:
        model: The distiller, its taps set.
        options: Arguments of :func:`torch.compile`.

    Returns:
        The paths of the parts, by member.

    Raises:
        ValueError: If PyTorch refuses the options, or cannot compile with them here.
    """
    _try(options, next(model.parameters()).device)
    if 'isolate_recompiles' in inspect.signature(torch.compile).parameters:
        # Else all networks share how often their common code may be compiled, eight times, and
        # what comes later runs uncompiled.
        options = {'isolate_recompiles': True, **options}
    parts = {}
    for name in model.member_names:
        found = dict(uninterrupted_parts(model.network(name)))
        for part in found.values():
            part.compile(**options)
        parts[name] = list(found)
    return parts


def uninterrupted_parts(module: nn.Module, path: str = '') -> Iterator[tuple[str, nn.Module]]:
    """Paths and modules of the largest parts that are called, and hold neither hook nor switch.

    Args:
        module: A segmentor with its taps.
        path: Of the module.
    """
    interrupted = any(
        each._forward_hooks or isinstance(each, SharedModule) for each in module.modules()
    )
    if interrupted or isinstance(module, NOT_CALLED):
        for name, child in module.named_children():
            yield from uninterrupted_parts(child, f'{path}.{name}' if path else name)
    elif any(True for _ in module.children()):
        # One layer alone has nothing to be joined with.
        yield path, module


def _try(options: Mapping[str, Any], device: torch.device) -> None:
    """Compile a sum, so that what is not there is not missed amid the first iteration."""
    try:
        torch.compile(lambda numbers: numbers + 1, **options)(torch.zeros(2, device=device))
    except Exception as error:  # backends raise what they like
        raise ValueError(
            f'PyTorch cannot compile with {dict(options)}: {words_of(error)}. Remove it from the '
            "config, or take compile=dict(backend='aot_eager'), which needs no compiler"
        ) from error
