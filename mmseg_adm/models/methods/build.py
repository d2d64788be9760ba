"""Building a method, every mistake in its config reported under its name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping

from torch import nn

from mmseg_adm.registry import MODELS

from .base import DistillationMethod


def build_method(
    name: str, config: Mapping, networks: Mapping[str, nn.Module], frozen: Collection[str]
) -> DistillationMethod:
    """Build the method that a config calls ``name``.

    Args:
        name: What the config calls it.
        config: ``type`` and options.
        networks: The members by name.
        frozen: Names of those that don't train.

    Raises:
        ValueError: If the type or an option is unknown, a value impossible, a member or a tap
            not there, or a member that the method trains is frozen.
    """
    kind = MODELS.get(config['type']) if isinstance(config['type'], str) else config['type']
    if kind is None:
        raise ValueError(f"method '{name}': type '{config['type']}' is not registered")
    try:
        _check_options(kind, config)
        method = MODELS.build(config)
        _check_members(method, networks, frozen)
        method.setup(networks)
    except (ValueError, TypeError) as error:
        raise ValueError(f"method '{name}' ({kind.__name__}): {error}") from error
    return method


def _check_options(kind: type, config: Mapping) -> None:
    options = list(inspect.signature(kind).parameters)
    for option in config:
        if option != 'type' and option not in options:
            near = difflib.get_close_matches(option, options, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ''
            raise ValueError(f"no option '{option}'.{hint} Its options: {', '.join(options)}")


def _check_members(
    method: DistillationMethod, networks: Mapping[str, nn.Module], frozen: Collection[str]
) -> None:
    for name in (*method.reads(), *method.updates()):
        if name not in networks:
            raise ValueError(f"'{name}' is not a member: {', '.join(networks)}")
    for name in method.updates():
        if name in frozen:
            raise ValueError(
                f"it trains '{name}', which is frozen. {method.frozen_advice}".rstrip()
            )
