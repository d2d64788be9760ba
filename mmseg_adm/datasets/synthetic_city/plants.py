"""Trees, hedges and bushes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import CIRCLE, Canvas, Place
from .colours import Colour, pick, shade, vary
from .ground import LEAVES
from .labels import Label

BARK: Colour = (82, 70, 60)
LEAST_PIXELS = 5.0  # crowns smaller than this need no leaves


def draw_tree(canvas: Canvas, rng: Generator, place: Place, height: float) -> None:
    """A trunk and a crown of overlapping tufts, lighter above."""
    x, z = place.x, place.z
    leaves = vary(rng, pick(rng, LEAVES), 12.0)
    crown = height * rng.uniform(0.3, 0.42)
    middle = np.array([x, height - 0.9 * crown, z])
    girth = rng.uniform(0.12, 0.3)
    trunk = [(x - girth, 0, z), (x + girth, 0, z), (x + 0.6 * girth, middle[1], z)]
    trunk.append((x - 0.6 * girth, middle[1], z))
    canvas.fill(trunk, vary(rng, BARK, 10.0), Label.VEGETATION)
    draw_tufts(canvas, rng, middle, crown, leaves)


def draw_tufts(
    canvas: Canvas, rng: Generator, middle: np.ndarray, radius: float, leaves: Colour
) -> None:
    """A round mass of leaves; its outline is as ragged as its inside."""
    size = radius * canvas.camera.scale(middle[2])
    centre = canvas.camera.project(middle)
    count = int(np.clip(size * 1.5, 6, 26))
    angle, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.random(count))
    offset = np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None] * 0.8
    offset = offset[np.argsort(-offset[:, 1])]
    radii = rng.uniform(0.25, 0.5, count)
    ragged = rng.uniform(0.7, 1.15, (count, len(CIRCLE), 1))
    tufts = centre + size * (offset[:, None] + radii[:, None, None] * ragged * CIRCLE)
    canvas.polygon(centre + 0.75 * size * CIRCLE, shade(leaves, 0.72), Label.VEGETATION, middle[2])
    light = 0.95 - 0.3 * offset[:, 1] + rng.normal(0.0, 0.12, count)
    light *= canvas.light.on(0.0, 0.7, -0.7)
    for tuft, factor in zip(tufts, light, strict=True):
        canvas.polygon(tuft, shade(leaves, factor), Label.VEGETATION, middle[2])


def draw_hedge(canvas: Canvas, rng: Generator, x: float, reach: tuple[float, float]) -> None:
    """A clipped hedge along the street, its top not quite level."""
    near, far = max(reach[0], 2.0), reach[1]
    if far - near < 1.0:
        return
    leaves, height = vary(rng, pick(rng, LEAVES), 12.0), rng.uniform(0.8, 2.2)
    depths = np.linspace(near, far, 14)
    outline = np.empty((28, 3))
    outline[:, 0] = x
    outline[:14, 1], outline[14:, 1] = 0.0, height + rng.normal(0.0, 0.08, 14)
    outline[:14, 2], outline[14:, 2] = depths, depths[::-1]
    canvas.fill(outline, leaves, Label.VEGETATION)
    for _ in range(10):
        at = rng.uniform(near, far)
        spot = np.array([x, rng.uniform(0.2, height - 0.2), at])
        canvas.disc(spot, rng.uniform(0.15, 0.4), shade(leaves, rng.uniform(0.7, 1.3)), None)
