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
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, HOOKS, MODELS, init_default_scope
from torch import nn

from mmseg_adm.config import check_config
from mmseg_adm.config.structure import hooks_of
from mmseg_adm.datasets.checks import check_data_paths, plain_datasets
from mmseg_adm.datasets.stream import seed_everything
from mmseg_adm.mistakes import building, described
from mmseg_adm.models import KnowledgeDistiller

from .data import (
    IMAGES,
    check_data,
    count_of,
    crop_of,
    reduced,
    smallest_batch,
    training_samples,
)
from .overview import describe_members, describe_methods, estimate_memory
from .report import Report
from .schedules import check_schedules
from .settings import check_settings
from .teachers import check_recorded_classes, check_teachers
from .terms import Losses, check_terms, find_terms, try_backward, try_step
from .validation import check_export, check_validation

LABEL_MAPS = 100
# What PyTorch says of a channel that has one value in all, and no statistics.
PER_CHANNEL = 'more than 1 value per channel'


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
        optim_wrapper: Its optimisers.
        datasets: ``'train'`` and, if there is one, ``'val'``.
        hooks: Of the run.
        label_maps: How many label maps of each set are searched for values out of range.
    """
    report = Report()
    report.attempt('config', 'failed', check_config, config)
    _inspect(config, model, optim_wrapper, datasets, hooks, label_maps, report)
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
) -> None:
    with borrowed_random_state():
        model = copy.deepcopy(model)
        report.attempt('settings', 'warning', check_settings, config, report)
        report.attempt('schedules', 'warning', check_schedules, config, report)
        check_data(model, datasets, label_maps, report)
        data = report.attempt(
            'training images', 'failed', _first_images, config, model, datasets['train']
        )
        report.crop = crop_of(data) if data else None
        members = report.attempt('members', 'warning', describe_members, model, report.crop)
        report.members = members or []
        if isinstance(model, KnowledgeDistiller):
            check_teachers(model, datasets.get('val'), report)
            for dataset in plain_datasets(datasets['train'])[:1]:
                check_recorded_classes(model, dataset.metainfo['classes'], report)
            # Losses sum over the processes: all of them run the step, or none.
            everywhere = all(all_gather_object(not report.failed))
            if data and everywhere:
                _inspect_methods(config, model, optim_wrapper, data, report)
            if (config.get('default_hooks') or {}).get('student_checkpoint'):
                report.attempt('student export', 'failed', check_export, config)
        # Else the line is there that says what is wrong with its images.
        readable = all(check.name != 'val data' for check in report.failed)
        if datasets.get('val') is not None and readable:
            check_validation(config, model, datasets['val'], hooks, report)


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


def _first_images(config: Config, model: Any, dataset: Any) -> dict:
    iterations = (config.get('train_cfg') or {}).get('max_iters')
    smallest = smallest_batch(config.train_dataloader, len(dataset), iterations)
    samples = training_samples(dataset, min(smallest, IMAGES))
    return model.data_preprocessor(samples, True)


def _inspect_methods(
    config: Config, model: KnowledgeDistiller, optim_wrapper: Any, data: dict, report: Report
) -> None:
    crop = crop_of(data)
    hooks = config.get('default_hooks') or {}
    schedules = (hooks.get('schedule') or {}).get('schedules') or {}
    methods = report.attempt('maps', 'warning', describe_methods, model, crop, schedules)
    report.methods = methods or []
    tried, losses = _try_step(model, data, optim_wrapper, report)
    if losses is None:
        return
    step = report.attempt('terms', 'warning', find_terms, model, losses)
    if step is None:
        # What cannot be asked of each loss may go well with their sum.
        report.attempt('training step', 'failed', try_backward, losses)
    else:
        report.terms = step.terms
        check_terms(model, step, report)
    measured = (count_of(tried), *crop_of(tried))
    wanted = (config.train_dataloader.get('batch_size') or IMAGES, *crop)
    sizes = (losses.activations, measured, wanted)
    report.memory = report.attempt(
        'memory', 'warning', estimate_memory, model, optim_wrapper, *sizes
    )


def _try_step(
    model: KnowledgeDistiller, data: dict, optim_wrapper: Any, report: Report
) -> tuple[dict, Losses | None]:
    """Run a training step on small images; if it fails, which some networks do, on full ones.

    Returns:
        The images, and their losses if there are any in every process.
    """
    small = reduced(data)
    for tried in [small] if small is data else [small, data]:
        attempt = Report()
        losses = attempt.attempt('training step', 'failed', _step, model, tried, optim_wrapper)
        # Losses sum over the processes: all of them go on, or none.
        if all(all_gather_object(losses is not None)):
            return tried, losses
    report.checks += attempt.checks
    return tried, None


def _step(model: KnowledgeDistiller, data: dict, optim_wrapper: Any) -> Losses:
    try:
        return try_step(model, data, optim_wrapper)
    except Exception as error:  # networks and methods are anyone's
        images = count_of(data)
        advice = ''
        if images == 1 and isinstance(error, ValueError) and PER_CHANNEL in str(error):
            advice = (
                '. Batch normalization needs a second one here: set train_dataloader.batch_size to '
                '2 or more, drop_last=True where the last batch of an epoch is left with one, or '
                "norm_cfg to another type, such as 'GN'"
            )
        size = 'x'.join(map(str, crop_of(data)))
        raise ValueError(
            f'{described(error)}. It was tried with a batch of {images} of {size} pixels{advice}'
        ) from error
