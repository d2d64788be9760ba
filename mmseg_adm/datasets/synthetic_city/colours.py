"""RGB colours and how they vary from object to object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from numpy.random import Generator

Colour = tuple[float, float, float]
T = TypeVar('T')


def pick(rng: Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely; much faster than ``Generator.choice``."""
    return options[int(rng.integers(len(options)))]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour, lighter or darker."""
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def vary(rng: Generator, colour: Colour, spread: float = 18.0) -> Colour:
    """A colour nearby: mostly brighter or darker, a little of another hue."""
    shift = rng.normal(0.0, spread)
    red, green, blue = rng.normal(shift, 0.35 * spread, 3)
    return colour[0] + red, colour[1] + green, colour[2] + blue
