"""The contract between the distiller and a method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from torch import Tensor, nn

from ..step import DistillationStep

Choice = TypeVar('Choice', str, str | None)
# What a softmax of logits can be divided by.
LEAST_TAU, LARGEST_TAU = 0.01, 100


class DistillationMethod(nn.Module):
    """One paper: which maps it reads, whom it teaches, and its losses.

    A subclass implements :meth:`reads`, :meth:`updates` and :meth:`forward`; :meth:`setup`
    where it needs to know the networks. Sizes, valid positions and divisors over ranks come
    from the step, detaching and float32 from the loss functions: a method's own file holds
    the paper.
    """

    # Set by DistillScheduleHook, in [0, 1]: scales every loss; at 0 the method does not run.
    strength: float = 1.0
    # Whether the batch that just ran must not update a member, of those in may_pause(): scalars
    # of booleans on the device, since who reads them on the host waits for it.
    paused: Mapping[str, Tensor] = MappingProxyType({})
    # What to do instead where a member that it trains is frozen, or one that it reads is missing.
    frozen_advice: str = ''
    missing_advice: str = ''

    def reads(self) -> dict[str, tuple[str, ...]]:
        """The points that are tapped, by member."""
        raise NotImplementedError

    def updates(self) -> tuple[str, ...]:
        """The members that receive gradient."""
        raise NotImplementedError

    def may_pause(self) -> tuple[str, ...]:
        """The members that it may exempt from the update of a batch; nobody by default."""
        return ()

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        """Build what depends on the networks (projections); nothing by default.

        Args:
            networks: The members by name. They must not be kept.
        """

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """Losses, keys ``loss_<term>``, and monitors, keys without "loss", as scalars."""
        raise NotImplementedError


def non_negative(option: str, value: float) -> float:
    """``value``, or a ``ValueError`` that names the option unless it is finite and >= 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise ValueError(f'{option} must be a finite number >= 0, got {value!r}')
    return float(value)


def positive(option: str, value: float) -> float:
    """``value``, or a ``ValueError`` that names the option unless it is finite and > 0."""
    if non_negative(option, value) == 0:
        raise ValueError(f'{option} must be greater than 0')
    return float(value)


def temperature(option: str, value: float) -> float:
    """``value``, or a ``ValueError`` unless a softmax at that temperature says something.

    Beyond these bounds logits divided by it overflow, or all classes come out equally likely.
    """
    if not LEAST_TAU <= positive(option, value) <= LARGEST_TAU:
        raise ValueError(
            f'{option} must be from {LEAST_TAU} to {LARGEST_TAU}, got {value!r}: papers have '
            '1 to 20'
        )
    return float(value)


def whole(option: str, value: int, at_least: int = 0) -> int:
    """``value``, or a ``ValueError`` that names the option unless it is so large an integer."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f'{option} must be an integer >= {at_least}, got {value!r}')
    return value


def flag(option: str, value: bool) -> bool:
    """``value``, or a ``ValueError`` that names the option unless it is ``True`` or ``False``."""
    if not isinstance(value, bool):
        raise ValueError(f'{option} must be True or False, got {value!r}')
    return value


def several(option: str, names: Sequence[str], at_least: int = 2) -> tuple[str, ...]:
    """``names`` as a tuple, or a ``ValueError`` unless they are so many different texts."""
    texts = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not texts or len(set(names)) < max(len(names), at_least):
        raise ValueError(f'{option} must be {at_least} or more different names, got {names!r}')
    return tuple(names)


def point(option: str, value: str) -> str:
    """``value``, or a ``ValueError`` unless it is the name of a point."""
    if not isinstance(value, str):
        raise ValueError(f"{option} must be 'features', 'logits' or a module path, got {value!r}")
    return value


def one_of(option: str, value: Choice, choices: Sequence[Choice]) -> Choice:
    """``value``, or a ``ValueError`` that names the option and its choices."""
    if value not in choices:
        raise ValueError(f'{option} must be one of {", ".join(map(repr, choices))}, got {value!r}')
    return value
