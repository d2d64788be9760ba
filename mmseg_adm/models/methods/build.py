"""Building a method, every mistake in its config reported under its name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping

from torch import nn

from mmseg_adm.registry import MODELS

from ..taps import NAMED_POINTS, map_shapes
from .base import DistillationMethod

FROZEN = 'frozen'
EMA_TEACHER = 'an EMA teacher'


def build_method(
    name: str, config: Mapping, networks: Mapping[str, nn.Module], resting: Mapping[str, str]
) -> DistillationMethod:
    """Build the method that a config calls ``name``.

    Args:
        name: What the config calls it.
        config: ``type`` and options.
        networks: The members by name.
        resting: What those are that don't train, by name: frozen, for one.

    Raises:
        ValueError: If the type or an option is unknown, a value impossible, a member or a tap
            not there, or a member that the method trains does not train.
    """
    options = dict(config) if isinstance(config, Mapping) else {}
    kind = options.pop('type', None)
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (inspect.isclass(kind) and issubclass(kind, DistillationMethod)):
        raise ValueError(
            f"method '{name}' must be a dict with the type of a method, such as "
            f"type='mmseg_adm.ADM', got {config!r}"
        )
    try:
        _check_options(kind, options)
        method = kind(**options)
        _check_members(method, networks, resting)
        method.setup(networks)
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError) as error:
        raise ValueError(f"method '{name}' ({kind.__name__}): {error}") from error
    return method


def _check_options(kind: type, options: Mapping) -> None:
    known = list(inspect.signature(kind).parameters)
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ''
            raise ValueError(f"no option '{option}'.{hint} Its options: {', '.join(known)}")


def _check_members(
    method: DistillationMethod, networks: Mapping[str, nn.Module], resting: Mapping[str, str]
) -> None:
    for name in (*method.reads(), *method.updates()):
        if name not in networks:
            raise ValueError(
                f"'{name}' is not a member: {', '.join(networks)}. {method.missing_advice}".rstrip()
            )
    if len(method.reads()) < 2:
        raise ValueError(f"'{next(iter(method.reads()))}' cannot teach itself: name two members")
    for name, points in method.reads().items():
        # A module that is not there, or yields no map, is found before the first step.
        if paths := [point for point in points if point not in NAMED_POINTS]:
            try:
                map_shapes(networks[name], paths)
            except RuntimeError as error:
                raise ValueError(f"trying member '{name}' on an image: {error}") from None
    for name in method.updates():
        if name in resting:
            advice = method.frozen_advice if resting[name] == FROZEN else 'It may only teach'
            raise ValueError(f"it trains '{name}', which is {resting[name]}. {advice}".rstrip())
