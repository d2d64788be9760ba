"""What a scene is made of, once everything has its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, Place


@dataclass(frozen=True)
class Prop:
    """Something to draw, the deepest first.

    Args:
        x: Where it is.
        z: What it is sorted by; all of it is seen before anything deeper.
        radius: How far it reaches sideways, in metres: out of the picture it is left out.
        draw: Draws it.
        outline: (K, 3) ground that it shades.
    """

    x: float
    z: float
    radius: float
    draw: Callable[[Canvas, Generator], None]
    outline: np.ndarray | None = None


def standing(
    draw: Callable[..., None], place: Place, size: tuple[float, float], **how: Any
) -> Prop:
    """A thing of this length and width on the ground, drawn by ``draw(canvas, rng, place)``."""
    length, width = size[0] / 2 + 0.15, size[1] / 2 + 0.15
    corners = [(-length, 0, -width), (-length, 0, width), (length, 0, width), (length, 0, -width)]
    drawn = partial(draw, place=place, **how)
    return Prop(place.x, place.z, max(length, 1.0), drawn, place.world(corners))
