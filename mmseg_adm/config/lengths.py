"""How long a config trains, and how often its hooks act: what would come to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.registry import DATA_SAMPLERS, HOOKS, LOOPS
from mmengine.runner import EpochBasedTrainLoop

from .registered import class_of
from .structure import hooks_of

OWN = 'mmseg_adm.'
# A sampler of this package that ends where its hook counts epochs.
STREAM, COUNTING = 'StreamSampler', 'DataStreamHook'


def check_lengths(config: Config) -> None:
    """Refuse a training of no iterations or endless epochs, and what is to happen every 0 of them.

    MMEngine takes both: such a training ends at once, and such a hook never acts. The hooks of this
    package check their own options.

    Raises:
        ValueError: With the path of the setting and its value.
    """
    for path, value in _lengths(config):
        if value is not None and not _counts(value):
            raise ValueError(f'{path} must be an integer >= 1, got {value!r}')
    for path, value in _intervals(config):
        # MMEngine's word for never.
        if value != -1 and not _counts(value):
            raise ValueError(f'{path} must be an integer >= 1, or -1 for never, got {value!r}')
    _check_epochs_end(config)


def _check_epochs_end(config: Config) -> None:
    loop = config.get('train_cfg') or {}
    kind = class_of(loop.get('type'), LOOPS)
    counts_epochs = isinstance(kind, type) and issubclass(kind, EpochBasedTrainLoop)
    if not (counts_epochs or loop.get('by_epoch')):
        return
    setting = (config.get('train_dataloader') or {}).get('sampler') or {}
    sampler = class_of(setting.get('type'), DATA_SAMPLERS)
    if isinstance(sampler, type) and issubclass(sampler, InfiniteSampler):
        raise ValueError(
            f'train_cfg counts epochs, and {sampler.__name__} ends none: set '
            "train_dataloader.sampler.type='DefaultSampler', or train_cfg.type="
            "'IterBasedTrainLoop' with max_iters"
        )
    hooks = [class_of(hook.get('type'), HOOKS) for _, hook in hooks_of(config)]
    if getattr(sampler, '__name__', '') == STREAM and not any(
        getattr(hook, '__name__', '') == COUNTING for hook in hooks
    ):
        raise ValueError(
            f'train_cfg counts epochs, and without its hook {STREAM} ends none: set '
            f"default_hooks.data_stream=dict(type='{OWN}{COUNTING}')"
        )


def _counts(value: Any) -> bool:
    # MMEngine takes 8e4 for 80000.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and value >= 1 and value == int(value)


def _lengths(config: Config) -> Iterator[tuple[str, Any]]:
    for option in ('max_iters', 'max_epochs', 'val_interval'):
        yield f'train_cfg.{option}', (config.get('train_cfg') or {}).get(option)


def _intervals(config: Config) -> Iterator[tuple[str, Any]]:
    for path, hook in hooks_of(config):
        if 'interval' in hook and not str(hook.get('type')).startswith(OWN):
            yield f'{path}.interval', hook['interval']
