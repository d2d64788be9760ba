"""How long a config trains, and how often its hooks act: what would come to nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

OWN = 'mmseg_adm.'


def check_lengths(config: Config) -> None:
    """Refuse a training of no iterations, and what is to happen every 0 of them.

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


def _counts(value: Any) -> bool:
    # MMEngine takes 8e4 for 80000.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and value >= 1 and value == int(value)


def _lengths(config: Config) -> Iterator[tuple[str, Any]]:
    for option in ('max_iters', 'max_epochs', 'val_interval'):
        yield f'train_cfg.{option}', (config.get('train_cfg') or {}).get(option)


def _intervals(config: Config) -> Iterator[tuple[str, Any]]:
    hooks = {f'default_hooks.{name}': hook
             for name, hook in (config.get('default_hooks') or {}).items()}  # fmt: skip
    hooks |= {f'custom_hooks.{i}': hook for i, hook in enumerate(config.get('custom_hooks') or [])}
    for path, hook in hooks.items():
        own = isinstance(hook, Mapping) and str(hook.get('type')).startswith(OWN)
        if isinstance(hook, Mapping) and not own and 'interval' in hook:
            yield f'{path}.interval', hook['interval']
