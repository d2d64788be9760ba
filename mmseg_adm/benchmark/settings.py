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
# Likewise, where a config has them and they ask for something.
RARE = ('compile', 'sync_bn', 'auto_scale_lr', 'val_cfg')
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
    settings |= {key: value for key in RARE if (value := _asked_for(config.get(key)))}
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


def _asked_for(value: object) -> object:
    """A setting without what every config has: the loop's type, and what is off."""
    if not isinstance(value, dict):
        return value
    if value.get('enable') is False:
        return None
    return {key: each for key, each in value.items() if key != 'type'}


def _plain_datasets(dataset: dict) -> list[dict]:
    """The data sets inside wrappers (streams, repetitions, concatenations)."""
    wrapped = [dataset['dataset']] if dataset.get('dataset') else dataset.get('datasets')
    return [each for inner in wrapped for each in _plain_datasets(inner)] if wrapped else [dataset]


def missing_lists(config: Config) -> list[str]:
    """Lists of images that are not here: results of their settings are not known again."""
    return [
        str(path)
        for split in ('train', 'val')
        for dataset in _plain_datasets(config[f'{split}_dataloader'].dataset)
        if (path := _list_of(dataset)) and not path.is_file()
    ]


def _list_of(dataset: dict) -> Path | None:
    names = dataset.get('ann_file')
    return Path(dataset.get('data_root') or '') / names if names else None


def _forget_place(dataset: dict) -> None:
    """Name the images by what their list says, not by where list and images lie."""
    if path := _list_of(dataset):
        # Without the data there is its name, which lines that were trained do not know.
        dataset['ann_file'] = path.read_text() if path.is_file() else dataset['ann_file']
    dataset['data_root'] = None
