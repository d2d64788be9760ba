"""What a training costs, in multiply-adds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmseg_adm.config import is_distillation_config
from mmseg_adm.engine.hooks.schedule import method_strength
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.flops import count_flops

from .plan import Row
from .profiling import use_untrained_teachers

# By network, crop, and whether it trains; by settings and processes of a row.
_counted: dict[tuple, float | None] = {}
_totals: dict[tuple[str, int], float | None] = {}


def multiply_adds(row: Row, processes: int = 1) -> float | None:
    """Of all steps and images of a row's training; its teacher's own training is not in it.

    A network that trains counts three times its forward pass with auxiliary heads, its frozen first
    layers once; one that only teaches once that of backbone and decode head, in the steps in which
    a method reads it. What a method computes itself is left out; an iteration's seconds have it.

    Args:
        row: What trains.
        processes: Of the training, with a batch each.

    Returns:
        ``None`` if a network cannot be traced, or the config does not say how large crops are.

    Raises:
        ValueError: If the networks cannot be built.
    """
    key = row.settings, processes
    if key not in _totals:
        _totals[key] = _total(row, processes)
    return _totals[key]


def _total(row: Row, processes: int) -> float | None:
    config = row.resolved()
    counts = multiply_adds_of_networks(config, row.iterations)
    images = config.train_dataloader.batch_size * processes
    return None if counts is None else sum(counts.values()) * images


def multiply_adds_of_networks(config: Config, iterations: int) -> dict[str, float] | None:
    """By member, of one image in each of so many steps; counted as in :func:`multiply_adds`."""
    crop = config.model.get('data_preprocessor', {}).get('size')
    counts = {}
    with built(config) as model:
        for name, network, steps, trains in _work(model, config, iterations):
            count = crop and _count(config, name, network, tuple(crop), trains)
            if count is None:
                return None
            counts[name] = count * steps
    return counts


@contextlib.contextmanager
def built(config: Config) -> Iterator[Any]:
    """What trains, with random weights in place of a trained teacher's."""
    init_default_scope(config.get('default_scope', 'mmseg'))
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        if is_distillation_config(config):
            use_untrained_teachers(config, Path(folder))
        yield MODELS.build(config.model)


def _work(
    model: Any, config: Config, iterations: int
) -> Iterator[tuple[str, nn.Module, int, bool]]:
    """Each network with its name, the steps in which it runs, and whether it trains."""
    if not isinstance(model, KnowledgeDistiller):
        yield '', model, iterations, True
        return
    for name, network in model.members.items():
        yield name, network, iterations, True
    hook = (config.get('default_hooks') or {}).get('schedule') or {}
    schedules = hook.get('schedules') or {}
    for name in (*model.frozen, *model.averages):
        times = [schedules.get(key, {}) for key, each in model.methods.items()
                 if name in each.reads()]  # fmt: skip
        steps = sum(any(method_strength(step, **each) > 0 for each in times)
                    for step in range(iterations))  # fmt: skip
        yield name, model.network(name), steps, False


def _count(
    config: Config, name: str, network: nn.Module, crop: tuple[int, int], trains: bool
) -> float | None:
    # A bridge and an average are built from other members.
    members = config.model.get('members')
    own = members[name] if name else config.model
    made_of = members if own.get('type', '').startswith('mmseg_adm.') else None
    described = json.dumps([own, made_of], sort_keys=True, default=str)
    key = (described, crop, trains)
    if key not in _counted:
        _counted[key] = count_flops(network, crop, training=trains)
    return _counted[key]
