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
    """Something to draw, in its turn.

    Args:
        x: How far to the right it is.
        z: How deep its middle is; for what lines the street, its far end.
        radius: How far it reaches sideways, in metres: out of the picture it is left out.
        draw: Draws it.
        outline: (K, 3) ground that it shades.
    """

    x: float
    z: float
    radius: float
    draw: Callable[[Canvas, Generator], None]
    outline: np.ndarray | None = None

    @property
    def order(self) -> float:
        """Depth, and of things side by side the outer one behind: long ones pass each other."""
        return self.z + abs(self.x)


def standing(
    draw: Callable[..., None], place: Place, size: tuple[float, float], **how: Any
) -> Prop:
    """A thing of this length and width on the ground, drawn by ``draw(canvas, rng, place)``."""
    length, width = size[0] / 2 + 0.15, size[1] / 2 + 0.15
    corners = [(-length, 0, -width), (-length, 0, width), (length, 0, width), (length, 0, -width)]
    drawn = partial(draw, place=place, **how)
    return Prop(place.x, place.z, max(length, 1.0), drawn, place.world(corners))
