"""Everything flat: sky, far skyline, road, pavements, markings and the shadows on them."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import cv2
import numpy as np
from numpy.random import Generator

from .canvas import Canvas
from .colours import Colour, pick, shade, vary
from .labels import Label
from .street import FAR, Side, Street

GRASS: tuple[Colour, ...] = ((98, 116, 62), (120, 122, 70), (84, 104, 66), (134, 124, 88))
LEAVES: tuple[Colour, ...] = ((72, 92, 48), (58, 80, 46), (96, 106, 56), (128, 108, 58))
PAVING: tuple[Colour, ...] = ((128, 124, 120), (142, 134, 124), (112, 112, 114), (136, 118, 110))
ASPHALT: tuple[Colour, ...] = ((92, 92, 96), (106, 104, 102), (80, 82, 88), (120, 116, 112))
MARKING: Colour = (212, 212, 206)
KERB_HEIGHT = 0.12
SHORT, LONG = np.linspace(0.0, 1.0, 2), np.linspace(0.0, 1.0, 12)


def strip(
    canvas: Canvas,
    edges: tuple[float, float],
    colour: Colour | None,
    label: int | None,
    reach: tuple[float, float] = (1.0, FAR),
    height: float = 0.0,
) -> None:
    """A flat band along the street between two x; haze comes later, for all ground at once."""
    # Long bands follow the bend of the street; short ones are straight.
    steps = SHORT if reach[1] < 2 * reach[0] else LONG
    depths = reach[0] * (reach[1] / reach[0]) ** steps
    count = len(depths)
    outline = np.empty((2 * count, 3))
    outline[:count, 0], outline[count:, 0] = edges
    outline[:, 1] = height
    outline[:count, 2], outline[count:, 2] = depths, depths[::-1]
    canvas.polygon(canvas.camera.project(outline), colour, label)


def draw_sky(canvas: Canvas, rng: Generator) -> None:
    """A gradient with clouds, over the whole canvas."""
    rows, columns = canvas.labels.shape
    light = canvas.light
    height = np.linspace(0.0, 1.0, rows)[:, None, None] / canvas.camera.horizon
    low = np.clip(height, 0, 1) ** 1.5
    sky = (1 - low) * np.asarray(light.sky_high) + low * np.asarray(light.sky_low)
    sky = sky.astype(np.float32)
    clouds = np.zeros((rows, columns), np.float32)
    for cells, weight in ((3, 0.6), (8, 0.3), (24, 0.15)):
        noise = rng.random((2 * cells, cells), dtype=np.float32)
        clouds += weight * cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)
    cover = light.clouds * np.clip(3.0 * (clouds - 0.5), 0.0, 1.0)[..., None]
    white = (np.asarray(light.sky_low) * rng.uniform(0.85, 1.12)).astype(np.float32)
    canvas.image[:] = np.clip(sky + cover * (white - sky), 0, 255)
    canvas.labels[:] = Label.SKY


def draw_skyline(canvas: Canvas, rng: Generator) -> None:
    """Far houses and trees along the horizon, so that the street does not end in the sky."""
    for depth in (210.0, 170.0):
        x = -170.0
        while x < 170.0:
            width = rng.uniform(12.0, 40.0)
            if rng.random() < 0.55:
                tops = np.full(2, rng.uniform(6.0, 20.0))
                colour, label = vary(rng, (128, 118, 110)), Label.BUILDING
            else:
                tops = rng.uniform(4.0, 12.0, 5)
                colour, label = vary(rng, pick(rng, LEAVES)), Label.VEGETATION
            across = np.linspace(x, x + width, len(tops)).tolist()
            roof = [(a, top, depth) for a, top in zip(across, tops.tolist(), strict=True)]
            canvas.fill([(x, -1.0, depth), *roof, (x + width, -1.0, depth)], colour, label)
            x += width * rng.uniform(0.7, 1.3)


def draw_ground(canvas: Canvas, rng: Generator, street: Street) -> None:
    """Road, pavements and lots, with their markings."""
    asphalt, paving = vary(rng, pick(rng, ASPHALT), 11.0), vary(rng, pick(rng, PAVING), 14.0)
    grass = vary(rng, pick(rng, GRASS))
    strip(canvas, (-300.0, 300.0), grass, Label.TERRAIN)
    left, right = street.sides
    strip(canvas, (left.kerb, right.kerb), asphalt, Label.ROAD)
    _draw_wear(canvas, rng, street, asphalt)
    for side in street.sides:
        _draw_side(canvas, rng, side, asphalt, vary(rng, paving, 6.0), grass)
    _draw_markings(canvas, rng, street)
    if street.tram is not None:
        for gauge in (-0.72, 0.72):
            x = street.tram.x + gauge
            strip(canvas, (x - 0.07, x + 0.07), shade(asphalt, 0.55), None)


def _draw_wear(canvas: Canvas, rng: Generator, street: Street, asphalt: Colour) -> None:
    left, right = street.sides
    for lane in street.lanes:
        for wheel in (-0.8, 0.8):
            x = lane.x + wheel
            strip(canvas, (x - 0.25, x + 0.25), shade(asphalt, rng.uniform(0.9, 1.02)), None)
    for _ in range(rng.integers(1, 5)):  # repairs and manhole covers
        x, near = rng.uniform(left.kerb, right.kerb - 1.0), rng.uniform(4.0, 30.0)
        wide, length = rng.uniform(0.5, 2.5), rng.uniform(0.6, 8.0)
        edges = (x, min(x + wide, right.kerb))
        strip(canvas, edges, shade(asphalt, rng.uniform(0.72, 1.15)), None, (near, near + length))


def _draw_side(
    canvas: Canvas,
    rng: Generator,
    side: Side,
    asphalt: Colour,
    paving: Colour,
    grass: Colour,
) -> None:
    stone = shade(paving, rng.uniform(0.8, 1.25))
    strip(canvas, (side.kerb, side.line), paving, Label.SIDEWALK, height=KERB_HEIGHT)
    for joint in np.arange(3.0, 24.0, 1.5):
        edges = (side.kerb, side.line)
        strip(canvas, edges, shade(paving, 0.88), None, (joint, joint + 0.06), KERB_HEIGHT)
    if side.verge:
        edges = (side.beyond(0.2), side.beyond(side.verge))
        strip(canvas, edges, vary(rng, grass, 8.0), Label.TERRAIN, height=KERB_HEIGHT)
    for lot in side.lots:
        edges = (side.line, side.line + 60.0 * side.sign)
        reach = (max(lot.near, 1.0), lot.far)
        if lot.kind in ('building', 'walled'):
            strip(canvas, edges, paving, Label.SIDEWALK, reach, KERB_HEIGHT)
        elif lot.kind == 'side_street':
            edges = (side.kerb, edges[1])
            inner = (max(lot.near + 0.8, 1.0), lot.far - 0.8)
            strip(canvas, (side.line, edges[1]), paving, Label.SIDEWALK, reach)
            strip(canvas, edges, asphalt, Label.ROAD, inner)
    for lot in side.lots:
        if lot.kind != 'side_street':
            depths = np.linspace(max(lot.near, 1.0), lot.far, 6)
            _draw_kerb(canvas, side, depths, stone)


def _draw_kerb(canvas: Canvas, side: Side, depths: np.ndarray, stone: Colour) -> None:
    face = np.empty((12, 3))
    face[:, 0] = side.kerb
    face[:6, 1], face[6:, 1] = 0.0, KERB_HEIGHT
    face[:6, 2], face[6:, 2] = depths, depths[::-1]
    edges = (side.kerb, side.beyond(0.16))
    reach = (float(depths[0]), float(depths[-1]))
    strip(canvas, edges, stone, Label.SIDEWALK, reach, KERB_HEIGHT)
    tone = shade(stone, 0.8 * canvas.light.on(-side.sign, 0.0, 0.0))
    canvas.polygon(canvas.camera.project(face), tone, Label.SIDEWALK)


def _draw_markings(canvas: Canvas, rng: Generator, street: Street) -> None:
    if rng.random() < 0.15:
        return  # a worn street
    paint = shade(MARKING, rng.uniform(0.7, 1.1))
    headings = {round(lane.x, 3): lane.heading for lane in street.lanes}
    middles = sorted(headings)
    for this, following in pairwise(middles):
        x = (this + following) / 2
        solid = headings[this] != headings[following] and rng.random() < 0.4
        dashes: Iterable[tuple[float, float]] = [(2.0, 90.0)]
        if not solid:
            phase = rng.uniform(0.0, 6.0)
            dashes = [(start, start + 3.0) for start in np.arange(1.5 + phase, 80.0, 7.0)]
        for reach in dashes:
            strip(canvas, (x - 0.07, x + 0.07), paint, None, reach)
    for side in street.sides:
        if rng.random() < 0.6:
            x = side.kerb - side.sign * (side.parking or 0.3)
            strip(canvas, (x - 0.06, x + 0.06), paint, None, (1.5, 90.0))
    if street.crossing is not None:
        left, right = street.sides
        reach = (street.crossing, street.crossing + 3.0)
        for x in np.arange(left.kerb + 0.4, right.kerb - 0.5, 1.0):
            strip(canvas, (x, x + 0.5), paint, None, reach)


def cast_shadows(canvas: Canvas, rng: Generator, outlines: list[np.ndarray]) -> None:
    """Darkens the ground under these (K, 3) outlines, softly, and lays haze over all ground."""
    rows = canvas.labels.shape[0]
    mask: np.ndarray = np.zeros(canvas.labels.shape, np.uint8)
    for outline in outlines:
        pixels = np.clip(canvas.camera.project(outline), -1e5, 1e5)
        cv2.fillConvexPoly(mask, np.rint(pixels).astype(np.int32), 255)
    mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, rows / 160))
    # Above the horizon keep is one and fade nothing.
    keep = np.exp(-canvas.light.haze_density * canvas.camera.ground_depth())
    keep = np.where(keep > 0.0, keep, 1.0).astype(np.float32)[..., None]
    sunlit = 1.0 - np.float32(rng.uniform(0.4, 0.65) / 255.0) * mask[..., None]
    ground = canvas.image * (keep * sunlit)
    ground += (1.0 - keep) * np.asarray(canvas.light.haze, np.float32)
    np.clip(ground, 0, 255, out=ground)
    canvas.image[:] = ground
