"""Trees, hedges and bushes."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import CIRCLE, Canvas, Place
from .colours import Colour, pick, shade, vary
from .ground import LEAVES
from .labels import Label

BARK: Colour = (82, 70, 60)
MOST_TUFTS = 40


def draw_tree(canvas: Canvas, rng: Generator, place: Place, height: float) -> None:
    """A trunk and a crown of overlapping tufts, lighter above."""
    x, z = place.x, place.z
    if not canvas.camera.sees(x, z, 0.42 * height):
        return
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
    # As much chance is drawn for a small crown as for a large one, or the rest of the scene
    # would change with the size of the image.
    angle, reach = rng.uniform(0, 2 * np.pi, MOST_TUFTS), np.sqrt(rng.random(MOST_TUFTS))
    ragged = rng.uniform(0.75, 1.1, (MOST_TUFTS, len(CIRCLE), 1))
    tone = rng.normal(0.0, 0.1, MOST_TUFTS)
    count = int(np.clip(size, 5, MOST_TUFTS))
    offset = 0.8 * (np.stack([np.cos(angle), np.sin(angle)], 1) * reach[:, None])[:count]
    offset = offset[np.argsort(-offset[:, 1])]
    radii = np.linspace(0.6, 0.35, MOST_TUFTS)[count - 1] * rng.uniform(0.7, 1.3, MOST_TUFTS)
    tufts = offset[:, None] + radii[:count, None, None] * ragged[:count] * CIRCLE
    light = (0.95 - 0.3 * offset[:, 1] + tone[:count]) * canvas.light.on(0.0, 0.7, -0.7)
    canvas.polygon(centre + 0.75 * size * CIRCLE, shade(leaves, 0.72), Label.VEGETATION, middle[2])
    colours = [shade(leaves, factor) for factor in light.tolist()]
    canvas.patches(centre + size * tufts, colours, Label.VEGETATION, middle[2])


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
