"""What a config must look like before anything is built from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from mmengine.config import Config

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
# Settings that are a dict, or left out.
DICTS = (
    *LOADERS, 'train_cfg', 'val_cfg', 'test_cfg', 'optim_wrapper', 'default_hooks', 'env_cfg',
    'randomness', 'visualizer', 'log_processor', 'tta_model', 'custom_imports', 'auto_scale_lr',
    'model_wrapper_cfg',
)  # fmt: skip
# Settings that are one dict or several.
SEVERAL = ('param_scheduler', 'val_evaluator', 'test_evaluator', 'custom_hooks', 'vis_backends')
TEXTS = ('work_dir', 'load_from', 'default_scope')
# Whole numbers, and the least that each may be.
NUMBERS: dict[str, int | None] = {
    **{f'{loader}.batch_size': 1 for loader in LOADERS},
    **{f'{loader}.num_workers': 0 for loader in LOADERS},
    'optim_wrapper.accumulative_counts': 1,
    'randomness.seed': None,
}
LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')


def check_structure(config: Config) -> None:
    """Refuse a setting of a Runner's that is of another kind than the Runner takes.

    Args:
        config: In which members may still be names.

    Raises:
        ValueError: With the setting, its kind and an example.
    """
    if not isinstance(config.get('model'), Mapping):
        raise ValueError(
            f'{config.filename or "the config"} has no model: is it a part of other configs?'
        )
    _check_model(config.model)
    for key in DICTS:
        _check_dict(key, config.get(key))
    for key in SEVERAL:
        value = config.get(key)
        for part in value if isinstance(value, (list, tuple)) else [value]:
            _check_dict(key, part, 'a dict, or a list of dicts')
    if not isinstance(compiled := config.get('compile'), bool):
        _check_dict('compile', compiled, 'True, False, or a dict of arguments of torch.compile')
    for key in TEXTS:
        value = config.get(key)
        if not isinstance(value, (str, type(None))):
            raise ValueError(f'{key} must be a text, got {_shown(value)}')
    for path, least in NUMBERS.items():
        value = _at(config, path)
        # Not a bool, which is an int to Python.
        whole = type(value) is int and (least is None or value >= least)
        if value is not None and not whole:
            limit = '' if least is None else f' >= {least}'
            raise ValueError(f'{path} must be an integer{limit}, got {value!r}')
    if config.get('log_level') not in (None, *LEVELS):
        raise ValueError(f'log_level must be one of {", ".join(LEVELS)}, got {config.log_level!r}')
    _check_dict('optim_wrapper.optimizer', _at(config, 'optim_wrapper.optimizer'))
    for option in ('lr', 'weight_decay', 'momentum'):
        value = _at(config, f'optim_wrapper.optimizer.{option}')
        if isinstance(value, (str, list, tuple, Mapping)):
            path = f'optim_wrapper.optimizer.{option}'
            raise ValueError(f'{path} must be a number, got {_shown(value)}')
    for key in LOADERS:
        if config.get(key) and not isinstance(config[key].get('dataset'), Mapping):
            raise ValueError(
                f'{key}.dataset must be a dict, such as dataset=dict(type=...), got '
                f'{_shown(config[key].get("dataset"))}'
            )
    hooks = config.get('default_hooks') or {}
    for name, hook in hooks.items():
        _check_dict(f'default_hooks.{name}', hook)
    schedules = (hooks.get('schedule') or {}).get('schedules')
    _check_dict('default_hooks.schedule.schedules', schedules)
    for name, options in (schedules or {}).items():
        _check_dict(f'default_hooks.schedule.schedules.{name}', options)


def listed(path: str, value: Any) -> list[tuple[str, Any]]:
    """Paths and parts of a setting that is one dict, or a list of them, or left out."""
    if isinstance(value, (list, tuple)):
        return [(f'{path}.{index}', part) for index, part in enumerate(value)]
    return [(path, value)] if value else []


def metrics_of(config: Config, split: str) -> list[tuple[str, Any]]:
    """Paths and settings of the metrics of a split, also where an ``Evaluator`` is written out."""
    path = f'{split}_evaluator'
    given = config.get(path)
    if isinstance(given, Mapping) and 'metrics' in given:
        return listed(f'{path}.metrics', given['metrics'])
    return listed(path, given)


def schedules_of(config: Config) -> list[tuple[str, Any]]:
    """Paths and settings of the schedules: one, a list of them, or either by optimizer."""
    given = config.get('param_scheduler')
    chains = {'param_scheduler': given}
    if isinstance(given, Mapping) and 'type' not in given:
        chains = {f'param_scheduler.{name}': chain for name, chain in given.items()}
    return [each for name, chain in chains.items() for each in listed(name, chain)]


def hooks_of(config: Config) -> list[tuple[str, Any]]:
    """Paths and settings of the hooks, default ones first; without those that are left out."""
    hooks = (config.get('default_hooks') or {}).items()
    named = [(f'default_hooks.{name}', hook) for name, hook in hooks]
    given = [*named, *listed('custom_hooks', config.get('custom_hooks'))]
    return [(path, hook) for path, hook in given if isinstance(hook, Mapping)]


def backends_of(config: Config) -> list[tuple[str, Any]]:
    """Paths and settings of what a run's visualizer writes by."""
    visualizer = config.get('visualizer') or {}
    return listed('visualizer.vis_backends', visualizer.get('vis_backends'))


def _check_model(model: Mapping) -> None:
    for key, one in (('members', 'student'), ('methods', 'kd')):
        value = model.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise ValueError(
                f'model.{key} must be a dict by name, such as {key}=dict({one}=...), got '
                f'{_shown(value)}'
            )
    for name, member in (model.get('members') or {}).items():
        if not isinstance(member, (Mapping, str, type(None))):
            raise ValueError(
                f'model.members.{name} must be a dict with the config of a network, or the name of '
                f'a config, got {_shown(member)}'
            )

        checkpoint = member.get('checkpoint') if isinstance(member, Mapping) else None
        if not isinstance(checkpoint, (str, PathLike, type(None))):
            raise ValueError(
                f'model.members.{name}.checkpoint must be a path, an address or a name of a model '
                f'zoo, got {_shown(checkpoint)}'
            )
    size = (model.get('data_preprocessor') or {}).get('size')
    if size is not None and not (isinstance(size, (list, tuple)) and len(size) == 2):
        raise ValueError(
            f'model.data_preprocessor.size must be (height, width) in pixels, got {_shown(size)}'
        )


def _check_dict(path: str, value: object, expected: str = 'a dict') -> None:
    if value is not None and not isinstance(value, Mapping):
        raise ValueError(f'{path} must be {expected}, got {_shown(value)}')


def _at(config: Config, path: str) -> object:
    """The setting at a path, ``None`` if there is none."""
    value: object = config
    for key in path.split('.'):
        value = value.get(key) if isinstance(value, (Config, Mapping)) else None
    return value


def _shown(value: object) -> str:
    """A value that stands in the wrong place, and its kind."""
    kind = 'list' if isinstance(value, Sequence) and not isinstance(value, str) else ''
    text = repr(value)
    return f'the {kind or type(value).__name__} {text if len(text) < 80 else text[:77] + "..."}'
