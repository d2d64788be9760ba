"""All of preflight: of a run that is about to start, or of a config."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size, is_distributed
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, MODELS, init_default_scope
from torch import nn

from mmseg_adm.config import check_config
from mmseg_adm.config.structure import hooks_of
from mmseg_adm.datasets.checks import check_data_paths, plain_datasets
from mmseg_adm.datasets.stream import seed_everything
from mmseg_adm.mistakes import building
from mmseg_adm.models import KnowledgeDistiller

from .data import (
    IMAGES,
    check_data,
    crop_of,
    reduced,
    smallest_batch,
    training_samples,
)
from .memory import Trial, check_machine, failure_of, measure_memory, size_of
from .overview import describe_members, describe_methods
from .report import Memory, Report
from .schedules import check_schedules
from .settings import check_settings
from .teachers import check_recorded_classes, check_teachers
from .terms import Losses, check_terms, find_terms, try_backward, try_step
from .validation import check_export, check_validation

LABEL_MAPS = 100


def inspect_run(
    config: Config,
    model: nn.Module,
    optim_wrapper: Any,
    datasets: Mapping[str, Any],
    hooks: Sequence = (),
    label_maps: int = LABEL_MAPS,
) -> Report:
    """Look at a run that is about to start, and leave it as it was.

    Args:
        config: Of the run.
        model: A distiller or a plain segmentor, on its device; a copy of it is tried.
        optim_wrapper: Its optimizers.
        datasets: ``'train'`` and, if there is one, ``'val'``.
        hooks: Of the run.
        label_maps: How many label maps of each set are searched for values out of range.
    """
    report = Report()
    report.attempt('config', 'failed', check_config, config)
    processes = get_world_size()
    with on_its_own():
        _inspect(config, model, optim_wrapper, datasets, hooks, label_maps, report, processes)
    if report.memory:
        check_machine(report.memory, 'failed', report)
    return report


def inspect_config(config: Config) -> Report:
    """Build what a config names, without a work dir, and look at it.

    What cannot be built is a failed line of the report.
    """
    report = Report()
    init_default_scope(config.get('default_scope', 'mmseg'))
    report.attempt('config', 'failed', check_config, config)
    hooks = [] if report.failed else report.attempt('hooks', 'failed', _build_hooks, config)
    datasets = report.attempt('data folders', 'failed', _build_datasets, config) or {}
    model = report.attempt('networks', 'failed', _build_model, config)
    if 'train' in datasets and model is not None:
        optim_wrapper = report.attempt(
            'optimizer', 'failed', lambda: build_optim_wrapper(model, config.optim_wrapper)
        )
        if optim_wrapper is not None:
            _inspect(config, model, optim_wrapper, datasets, hooks or [], LABEL_MAPS, report)
            if report.memory:
                # Where the training will run is not known.
                check_machine(report.memory, 'warning', report)
    elif datasets:
        check_data(None, datasets, LABEL_MAPS, report)
    elif model is not None:
        report.members = describe_members(model, None)
    return report


def _inspect(
    config: Config,
    model: nn.Module,
    optim_wrapper: Any,
    datasets: Mapping[str, Any],
    hooks: Sequence,
    label_maps: int,
    report: Report,
    processes: int = 1,
) -> None:
    with borrowed_random_state():
        # Together, so that the one's optimizers are those of the other.
        model, optim_wrapper = copy.deepcopy((model, optim_wrapper))
        report.attempt('settings', 'warning', check_settings, config, report)
        report.attempt('schedules', 'warning', check_schedules, config, report)
        check_data(model, datasets, label_maps, report)
        data = report.attempt(
            'training images', 'failed', _first_images, config, model, datasets['train'], processes
        )
        report.crop = crop_of(data) if data else None
        members = report.attempt('members', 'warning', describe_members, model, report.crop)
        report.members = members or []
        step = None
        if isinstance(model, KnowledgeDistiller):
            check_teachers(model, datasets.get('val'), report)
            for dataset in plain_datasets(datasets['train'])[:1]:
                check_recorded_classes(model, dataset.metainfo['classes'], report)
            if data and not report.failed:
                step = _inspect_methods(config, model, optim_wrapper, data, report)
            if (config.get('default_hooks') or {}).get('student_checkpoint'):
                report.attempt('student export', 'failed', check_export, config)
        # Else the line is there that says what is wrong with its images.
        readable = all(check.name != 'val data' for check in report.failed)
        if datasets.get('val') is not None and readable:
            check_validation(config, model, datasets['val'], hooks, report)
        # Last, because it changes the weights.
        if data and step and not report.failed:
            images = config.train_dataloader.get('batch_size') or IMAGES
            report.memory = report.attempt(
                'memory',
                'warning',
                _measure,
                model,
                optim_wrapper,
                processes,
                data,
                *step,
                images,
                report,
            )


def _measure(
    model: KnowledgeDistiller, optim_wrapper: Any, processes: int, *arguments: Any
) -> Memory | None:
    return measure_memory(Trial(model, optim_wrapper, processes), *arguments)


@contextmanager
def on_its_own() -> Iterator[None]:
    """Have this process be the only one of its group inside the block.

    Losses sum over the processes. Where one of them fails before that, the others would wait.
    """
    if not is_distributed():
        yield
        return
    everybody = torch.distributed.group.WORLD
    alone = torch.distributed.new_group([get_rank()], use_local_synchronization=True)
    torch.distributed.group.WORLD = alone
    try:
        yield
    finally:
        torch.distributed.group.WORLD = everybody
        torch.distributed.destroy_process_group(alone)


@contextmanager
def borrowed_random_state(seed: int = 0) -> Iterator[None]:
    """Draw from ``seed`` inside the block, and go on afterwards as if nothing had been drawn."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - mmseg's transforms
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        seed_everything(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def _build_datasets(config: Config) -> dict[str, Any]:
    check_data_paths(config)
    loaders = {split: config.get(f'{split}_dataloader') for split in ('train', 'val')}
    return {split: DATASETS.build(loader.dataset) for split, loader in loaders.items() if loader}


def _build_model(config: Config) -> nn.Module:
    model = MODELS.build(config.model)
    model.init_weights()
    return model.to('cuda' if torch.cuda.is_available() else 'cpu')


def _build_hooks(config: Config) -> list[Hook]:
    """Those of this package; others may ask for a Runner's surroundings."""
    built = []
    for path, hook in hooks_of(config):
        kind = hook.get('type')
        if str(getattr(kind, '__module__', kind)).startswith('mmseg_adm.'):
            with building(path):
                built.append(HOOKS.build({k: v for k, v in hook.items() if k != 'priority'}))
    return built


def _first_images(config: Config, model: Any, dataset: Any, processes: int) -> dict:
    iterations = (config.get('train_cfg') or {}).get('max_iters')
    smallest = smallest_batch(config.train_dataloader, len(dataset), iterations, processes)
    samples = training_samples(dataset, min(smallest, IMAGES))
    return model.data_preprocessor(samples, True)


def _inspect_methods(
    config: Config, model: KnowledgeDistiller, optim_wrapper: Any, data: dict, report: Report
) -> tuple[dict, int] | None:
    """Returns the images of a step that runs, and what it keeps for its backward pass."""
    hooks = config.get('default_hooks') or {}
    schedules = (hooks.get('schedule') or {}).get('schedules') or {}
    methods = report.attempt('maps', 'warning', describe_methods, model, crop_of(data), schedules)
    report.methods = methods or []
    tried, losses = _try_step(model, data, optim_wrapper, report)
    if losses is None:
        return None
    step = report.attempt('terms', 'warning', find_terms, model, losses)
    if step is None:
        # What cannot be asked of each loss may go well with their sum.
        report.attempt('training step', 'failed', try_backward, losses)
    else:
        report.terms = step.terms
        check_terms(model, step, report)
    return tried, losses.activations


def _try_step(
    model: KnowledgeDistiller, data: dict, optim_wrapper: Any, report: Report
) -> tuple[dict, Losses | None]:
    """Run a training step on small images; if it fails, which some networks do, on full ones.

    Returns:
        The images, and their losses if there are any.
    """
    small = reduced(data)
    for tried in [small] if small is data else [small, data]:
        attempt = Report()
        losses = attempt.attempt('training step', 'failed', _step, model, tried, optim_wrapper)
        if losses is not None:
            return tried, losses
    report.checks += attempt.checks
    return tried, None


def _step(model: KnowledgeDistiller, data: dict, optim_wrapper: Any) -> Losses:
    try:
        return try_step(model, data, optim_wrapper)
    except Exception as error:  # networks and methods are anyone's
        raise ValueError(failure_of(error, size_of(data))) from error
