"""All of preflight: of a run that is about to start, or of a config."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import all_gather_object
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from mmseg_adm.datasets.checks import check_data_paths, plain_datasets
from mmseg_adm.datasets.stream import seed_everything
from mmseg_adm.models import KnowledgeDistiller

from .data import IMAGES, check_data, crop_of, reduced, training_samples
from .overview import describe_members, describe_methods, estimate_memory
from .report import Report
from .schedules import check_schedules
from .settings import check_settings
from .teachers import check_recorded_classes, check_teachers
from .terms import check_terms, try_step

LABEL_MAPS = 100


def inspect_run(
    config: Config,
    model: nn.Module,
    optim_wrapper: Any,
    datasets: Mapping[str, Any],
    label_maps: int = LABEL_MAPS,
) -> Report:
    """Look at a run that is about to start, and leave it as it was.

    Args:
        config: Of the run.
        model: A distiller or a plain segmentor, on its device; a copy of it is tried.
        optim_wrapper: Its optimisers.
        datasets: ``'train'`` and, if there is one, ``'val'``.
        label_maps: How many label maps of each set are searched for values out of range.
    """
    report = Report()
    with borrowed_random_state():
        model = copy.deepcopy(model)
        report.attempt('settings', 'warning', check_settings, config, report)
        report.attempt('schedules', 'warning', check_schedules, config, report)
        check_data(model, datasets, label_maps, report)
        data = report.attempt('training images', 'failed', _first_images, model, datasets['train'])
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
    return report


def inspect_config(config: Config) -> Report:
    """Build what a config names, without a work dir, and look at it.

    What cannot be built is a failed line of the report.
    """
    report = Report()
    init_default_scope(config.get('default_scope', 'mmseg'))
    datasets = report.attempt('data folders', 'failed', _build_datasets, config)
    model = report.attempt('networks', 'failed', _build_model, config)
    if datasets is not None and model is not None:
        optim_wrapper = report.attempt(
            'optimizer', 'failed', lambda: build_optim_wrapper(model, config.optim_wrapper)
        )
        if optim_wrapper is not None:
            return inspect_run(config, model, optim_wrapper, datasets)
    elif datasets is not None:
        check_data(None, datasets, LABEL_MAPS, report)
    elif model is not None:
        report.members = describe_members(model, None)
    return report


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


def _first_images(model: Any, dataset: Any) -> dict:
    return model.data_preprocessor(training_samples(dataset), True)


def _inspect_methods(
    config: Config, model: KnowledgeDistiller, optim_wrapper: Any, data: dict, report: Report
) -> None:
    crop = crop_of(data)
    hooks = config.get('default_hooks') or {}
    schedules = (hooks.get('schedule') or {}).get('schedules') or {}
    methods = report.attempt('maps', 'warning', describe_methods, model, crop, schedules)
    report.methods = methods or []
    small = reduced(data)
    step = report.attempt('training step', 'warning', try_step, model, small, optim_wrapper)
    if step is None:
        return
    report.terms = step.terms
    check_terms(model, step, report)
    measured = (IMAGES, *crop_of(small))
    wanted = (config.train_dataloader.get('batch_size') or IMAGES, *crop)
    sizes = (step.activations, measured, wanted)
    report.memory = report.attempt(
        'memory', 'warning', estimate_memory, model, optim_wrapper, *sizes
    )
