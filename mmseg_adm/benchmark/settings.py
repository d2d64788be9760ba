"""What decides what comes out of a cell: results of other settings are not the cell's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mmengine.config import Config

STUDENT, TEACHER = 'student', 'teacher'
# What decides what comes out of a training.
SETTINGS = (
    'model',
    'train_dataloader',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
    'val_dataloader',
    'val_evaluator',
    'default_hooks',
    'custom_hooks',
    'randomness',
)
# Stands for the teacher's weights where a config is only read.
SOME_CHECKPOINT = 'trained-alone.pth'


def settings_hash(
    config: Config, processes: int, teacher: str | None = None, goes_on: bool = False
) -> str:
    """Of all that decides what comes out but the seed: not of where data and teachers lie.

    Args:
        config: What trains, in full.
        processes: Of the training.
        teacher: The hash of the teacher trained alone, where a member starts from it.
        goes_on: Whether that one is in training.
    """
    settings = {key: value for key, value in config.to_dict().items() if key in SETTINGS}
    settings |= dict(processes=processes, teacher=teacher, trained_teacher=goes_on,
                     load_from=config.get('load_from'))  # fmt: skip
    settings.get('randomness', {}).pop('seed', None)
    if goes_on:
        settings['model']['members'][TEACHER]['checkpoint'] = ''
    # They look and change nothing.
    for hook in ('preflight', 'finite_weights'):
        settings.get('default_hooks', {}).pop(hook, None)
    for member in (settings['model'].get('members') or {}).values():
        if member.get('frozen'):
            member['checkpoint'] = None
        elif member.get('checkpoint') == SOME_CHECKPOINT:
            member['checkpoint'] = ''
    for split in ('train', 'val'):
        loader = settings[f'{split}_dataloader']
        for dataset in _plain_datasets(loader['dataset']):
            _forget_place(dataset)
        for key in ('num_workers', 'persistent_workers'):
            loader.pop(key, None)
        if loader.get('worker_init_fn') == {'type': 'mmseg_adm.share_by_file_name'}:
            loader.pop('worker_init_fn')
        loader['dataset'].pop('cache', None)
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain_datasets(dataset: dict) -> list[dict]:
    """The data sets inside wrappers (streams, repetitions, concatenations)."""
    wrapped = [dataset['dataset']] if dataset.get('dataset') else dataset.get('datasets')
    return [each for inner in wrapped for each in _plain_datasets(inner)] if wrapped else [dataset]


def _forget_place(dataset: dict) -> None:
    """Name the images by what their list says, not by where list and images lie."""
    if names := dataset.get('ann_file'):
        path = Path(dataset.get('data_root') or '') / names
        # Without the data, as where results are only reported, its name must do.
        dataset['ann_file'] = path.read_text() if path.is_file() else names
    dataset['data_root'] = None
