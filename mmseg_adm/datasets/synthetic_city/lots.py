"""What stands along the pavements: house fronts, walls, fences, gardens and parks."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, Place
from .colours import Colour, pick, shade, vary
from .labels import Label
from .plants import draw_hedge, draw_tree
from .street import Lot, Side

PLASTER: tuple[Colour, ...] = (
    (196, 184, 160), (168, 160, 150), (150, 92, 74), (204, 204, 198), (186, 158, 112),
    (122, 118, 116), (170, 130, 112), (150, 164, 160), (96, 86, 84), (198, 172, 156),
)  # fmt: skip
ROOFS: tuple[Colour, ...] = ((120, 72, 58), (84, 78, 78), (102, 92, 86), (136, 90, 66))
GLASS: tuple[Colour, ...] = ((52, 58, 68), (74, 84, 96), (40, 42, 46), (104, 118, 132))
STONE: tuple[Colour, ...] = ((132, 126, 118), (150, 104, 86), (172, 166, 154), (108, 106, 104))
RAILING: tuple[Colour, ...] = ((60, 66, 64), (120, 92, 64), (168, 168, 164), (70, 84, 70))
SHOPS: tuple[Colour, ...] = (
    (168, 48, 44),
    (40, 78, 140),
    (206, 172, 60),
    (50, 110, 74),
    (190, 188, 184),
)


def along(x: float, reach: tuple[float, float], heights: tuple[float, float]) -> np.ndarray:
    """A rectangle that runs along the street at this x: (4, 3), near low corner first."""
    (near, far), (low, high) = reach, heights
    return np.array([(x, low, near), (x, low, far), (x, high, far), (x, high, near)])


def facing(edges: tuple[float, float], depth: float, heights: tuple[float, float]) -> np.ndarray:
    """A rectangle that faces the camera at this depth: (4, 3)."""
    (left, right), (low, high) = edges, heights
    return np.array(
        [(left, low, depth), (right, low, depth), (right, high, depth), (left, high, depth)]
    )


def draw_lot(canvas: Canvas, rng: Generator, side: Side, lot: Lot) -> None:
    """Draws one lot, the far things first."""
    if lot.kind == 'building':
        draw_building(canvas, rng, side, lot, side.line, rng.uniform(7.0, 24.0))
    elif lot.kind == 'house':
        setback = rng.uniform(3.0, 7.0)
        inner = Lot('house', lot.near + rng.uniform(1.0, 3.0), lot.far - 1.0)
        x = side.line + side.sign * setback
        draw_building(canvas, rng, side, inner, x, rng.uniform(5.0, 9.0), pitched=True)
        _draw_trees(canvas, rng, side, lot, (1.5, setback), int(rng.integers(0, 3)))
        front = rng.random()
        if front < 0.4:
            draw_fence(canvas, rng, side.line, (lot.near, lot.far))
        elif front < 0.65:
            draw_wall(canvas, rng, side, lot, rng.uniform(0.6, 1.6))
        elif front < 0.9:
            draw_hedge(canvas, rng, side.line + 0.3 * side.sign, (lot.near, lot.far))
    elif lot.kind == 'walled':
        if rng.random() < 0.5:
            x = side.line + side.sign * rng.uniform(5.0, 12.0)
            draw_building(canvas, rng, side, lot, x, rng.uniform(5.0, 12.0))
        else:
            _draw_trees(canvas, rng, side, lot, (3.0, 9.0), int(rng.integers(1, 4)))
        draw_wall(canvas, rng, side, lot, rng.uniform(1.5, 3.4))
    elif lot.kind in ('park', 'fenced'):
        _draw_trees(canvas, rng, side, lot, (2.0, 25.0), int(rng.integers(1, 5)))
        if lot.kind == 'fenced':
            draw_fence(canvas, rng, side.line, (lot.near, lot.far))


def _draw_trees(
    canvas: Canvas, rng: Generator, side: Side, lot: Lot, reach: tuple[float, float], count: int
) -> None:
    depths = np.sort(rng.uniform(lot.near, lot.far, count))[::-1]
    for depth in depths:
        if depth > 4.0:
            x = side.line + side.sign * rng.uniform(*reach)
            draw_tree(canvas, rng, Place(x, float(depth)), rng.uniform(4.0, 10.0))


def draw_building(
    canvas: Canvas,
    rng: Generator,
    side: Side,
    lot: Lot,
    x: float,
    height: float,
    pitched: bool | None = None,
) -> None:
    """A block with its front along the street and its end wall towards the camera."""
    plaster = vary(rng, pick(rng, PLASTER), 14.0)
    near, far = max(lot.near, 1.0), lot.far
    back = x + side.sign * 12.0
    front = shade(plaster, canvas.light.on(-side.sign, 0.0, 0.0))
    end = shade(plaster, canvas.light.on(0.0, 0.0, -1.0))
    pitched = rng.random() < 0.4 if pitched is None else pitched
    if pitched:
        ridge = (x + side.sign * 5.0, height + rng.uniform(2.0, 4.0))
        roof = shade(vary(rng, pick(rng, ROOFS)), canvas.light.on(-0.6 * side.sign, 0.8, 0.0))
        slope = [(x, height, near), (x, height, far), (*ridge, far), (*ridge, near)]
        canvas.fill(slope, roof, Label.BUILDING)
        gable = [(x, height, near), (*ridge, near), (back, height, near)]
        canvas.fill(gable, end, Label.BUILDING)
    canvas.fill(facing((x, back), near, (0.0, height)), end, Label.BUILDING)
    canvas.fill(along(x, (near, far), (0.0, height)), front, Label.BUILDING)
    storey = rng.uniform(2.7, 3.8)
    _draw_windows(canvas, rng, x, (near, far), np.arange(storey, height - 2.0, storey), front)
    _draw_end_windows(canvas, rng, (x, back), near, np.arange(0.0, height - 2.0, storey), end)
    _draw_street_level(canvas, rng, x, (near, far), storey, front)
    if rng.random() < 0.5:
        cornice = shade(front, rng.uniform(0.7, 1.2))
        canvas.fill(along(x, (near, far), (height - 0.35, height)), cornice, None)


def _draw_windows(
    canvas: Canvas,
    rng: Generator,
    x: float,
    reach: tuple[float, float],
    floors: np.ndarray,
    front: Colour,
) -> None:
    pitch = rng.uniform(1.8, 3.6)
    wide, tall = pitch * rng.uniform(0.35, 0.75), rng.uniform(1.2, 1.9)
    starts = np.arange(reach[0] + 0.5, reach[1] - wide - 0.3, pitch)
    if not len(starts) or not len(floors):
        return
    low, near = (grid.ravel() for grid in np.meshgrid(floors + 0.8, starts))
    panes = np.empty((len(low), 4, 3))
    panes[..., 0] = x
    panes[..., 1] = low[:, None] + np.array([0, 0, tall, tall])
    panes[..., 2] = near[:, None] + np.array([0, wide, wide, 0])
    _draw_panes(canvas, rng, panes, front)


def _draw_end_windows(
    canvas: Canvas,
    rng: Generator,
    edges: tuple[float, float],
    depth: float,
    floors: np.ndarray,
    end: Colour,
) -> None:
    if rng.random() < 0.5 or not len(floors):
        return  # a blank gable
    columns = np.linspace(0.15, 0.75, int(rng.integers(2, 5)))
    low, left = (grid.ravel() for grid in np.meshgrid(floors + 0.9, columns))
    panes = np.empty((len(low), 4, 3))
    span = edges[1] - edges[0]
    panes[..., 0] = edges[0] + span * (left[:, None] + np.array([0, 0.1, 0.1, 0]))
    panes[..., 1] = low[:, None] + np.array([0, 0, 1.4, 1.4])
    panes[..., 2] = depth
    _draw_panes(canvas, rng, panes, end)


def _draw_panes(canvas: Canvas, rng: Generator, panes: np.ndarray, wall: Colour) -> None:
    """Frames, then glass; some panes reflect the sky and a few are lit."""
    centre = panes.mean(axis=1, keepdims=True)
    if rng.random() < 0.5:
        canvas.fill(centre + 1.18 * (panes - centre), shade(wall, rng.uniform(0.75, 1.3)), None)
    glass = vary(rng, pick(rng, GLASS))
    bright = rng.random(len(panes)) < rng.choice((0.0, 0.15, 0.4))
    if not bright.all():
        canvas.fill(panes[~bright], glass, None)
    if bright.any():
        reflection = pick(rng, (canvas.light.sky_low, (220, 196, 130), shade(glass, 1.6)))
        canvas.fill(panes[bright], shade(reflection, 0.85), None)


def _draw_street_level(
    canvas: Canvas,
    rng: Generator,
    x: float,
    reach: tuple[float, float],
    storey: float,
    front: Colour,
) -> None:
    """Doors and plain windows, or shops with a sign over the glass."""
    near, far = reach
    shops = rng.random() < 0.4
    if shops:
        canvas.fill(along(x, reach, (0.0, storey)), shade(front, rng.uniform(0.6, 1.1)), None)
    at = near + rng.uniform(0.4, 1.5)
    while at < far - 1.5:
        if shops:
            wide = min(rng.uniform(2.5, 5.0), far - at - 0.2)
            canvas.fill(along(x, (at, at + wide), (0.4, 2.3)), vary(rng, pick(rng, GLASS)), None)
            board = vary(rng, pick(rng, SHOPS))
            canvas.fill(along(x, (at, at + wide), (2.4, storey - 0.1)), board, None)
        elif rng.random() < 0.3:
            wide = 1.1
            door = vary(rng, pick(rng, (*RAILING, *SHOPS)))
            canvas.fill(along(x, (at, at + wide), (0.0, 2.2)), door, None)
        else:
            wide = rng.uniform(0.9, 1.6)
            canvas.fill(along(x, (at, at + wide), (0.9, 2.3)), vary(rng, pick(rng, GLASS)), None)
        at += wide + rng.uniform(0.4, 1.6)


def draw_wall(canvas: Canvas, rng: Generator, side: Side, lot: Lot, height: float) -> None:
    """A wall of its own along the pavement, with courses and a coping."""
    stone = vary(rng, pick(rng, (*STONE, *PLASTER)))
    face = shade(stone, canvas.light.on(-side.sign, 0.0, 0.0))
    x, near, far = side.line, max(lot.near, 1.0), lot.far
    end = facing((x, x + 0.4 * side.sign), near, (0.0, height))
    canvas.fill(end, shade(stone, canvas.light.on(0.0, 0.0, -1.0)), Label.WALL)
    canvas.fill(along(x, (near, far), (0.0, height)), face, Label.WALL)
    for course in np.arange(0.4, height - 0.3, 0.45):
        canvas.fill(along(x, (near, far), (course, course + 0.04)), shade(face, 0.85), None)
    coping = shade(stone, rng.uniform(0.8, 1.3))
    canvas.fill(along(x, (near, far), (height - 0.15, height)), coping, None)


def draw_fence(canvas: Canvas, rng: Generator, x: float, reach: tuple[float, float]) -> None:
    """Pickets, bars or boards: what shows between them counts as fence, as in Cityscapes."""
    near, far = max(reach[0], 2.0), reach[1]
    if far - near < 1.0:
        return
    height, paint = rng.uniform(0.9, 2.0), vary(rng, pick(rng, RAILING))
    canvas.fill(along(x, (near, far), (0.0, height)), None, Label.FENCE)
    gap = rng.uniform(0.18, 0.45)
    starts = np.arange(near, min(far, near + 90 * gap), gap)
    bars = np.empty((len(starts), 4, 3))
    bars[..., 0] = x
    bars[..., 1] = np.array([0.0, 0.0, height, height])
    bars[..., 2] = starts[:, None] + gap * rng.uniform(0.15, 0.6) * np.array([0, 1, 1, 0])
    canvas.fill(bars, paint, None)
    for rail in (0.2, height - 0.2):
        canvas.fill(along(x, (near, far), (rail, rail + 0.08)), shade(paint, 0.9), None)
