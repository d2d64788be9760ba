"""Poles, traffic lights, traffic signs, railings and the clutter nobody labels."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import CIRCLE, Canvas, Place
from .colours import Colour, pick, shade, vary
from .labels import Label

METAL: tuple[Colour, ...] = ((120, 122, 122), (84, 88, 88), (150, 150, 146), (66, 74, 70))
LAMPS: tuple[Colour, ...] = ((236, 60, 44), (240, 170, 50), (60, 210, 130))
# Face, rim and symbol of a sign; the last is a sign seen from behind.
SIGNS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((224, 222, 216), (190, 40, 40), (40, 40, 44)),
    ((36, 84, 164), (210, 212, 214), (226, 228, 230)),
    ((190, 44, 44), (220, 216, 212), (226, 224, 220)),
    ((226, 188, 56), (46, 44, 44), (46, 44, 44)),
    ((232, 232, 228), (40, 40, 44), (60, 60, 64)),
    ((134, 138, 138), (120, 124, 124), (150, 154, 154)),
)
OUTLINES: tuple[np.ndarray, ...] = (
    CIRCLE,
    np.array([(-1.0, 0.8), (1.0, 0.8), (0.0, -1.0)]),
    np.array([(-1.0, -0.8), (1.0, -0.8), (0.0, 1.0)]),
    np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
    np.array([(0.0, -1.1), (1.1, 0.0), (0.0, 1.1), (-1.1, 0.0)]),
    np.array([(-0.75, -1.1), (0.75, -1.1), (0.75, 1.1), (-0.75, 1.1)]),
)


def draw_pole(
    canvas: Canvas, rng: Generator, place: Place, height: float, width: float = 0.12
) -> None:
    """An upright pole."""
    x, z = place.x, place.z
    foot, top = (x, 0.0, z), (x, height, z)
    metal = shade(vary(rng, pick(rng, METAL)), canvas.light.on(0.0, 0.0, -1.0))
    canvas.limb(np.array([foot, top]), width, metal, Label.POLE)


def draw_lamp_post(canvas: Canvas, rng: Generator, place: Place, towards: int) -> None:
    """A street lamp that reaches over the road."""
    x, z = place.x, place.z
    height, reach = rng.uniform(5.5, 8.5), towards * rng.uniform(0.8, 2.2)
    draw_pole(canvas, rng, place, height, rng.uniform(0.12, 0.2))
    arm = np.array([(x, height, z), (x + reach, height + 0.35, z)])
    metal = vary(rng, pick(rng, METAL))
    canvas.limb(arm, 0.1, metal, Label.POLE)
    head = np.array([(x + reach, height + 0.3, z), (x + 1.3 * reach, height + 0.3, z)])
    canvas.limb(head, 0.22, shade(metal, 1.2), Label.POLE)


def draw_traffic_light(canvas: Canvas, rng: Generator, place: Place, towards: int) -> None:
    """A light on its pole, sometimes a second one on an arm over the road."""
    x, z = place.x, place.z
    draw_pole(canvas, rng, place, 3.3, 0.14)
    lit = int(rng.integers(3))
    back = rng.random() < 0.3
    _draw_light_box(canvas, rng, x, 2.9, z, None if back else lit)
    if rng.random() < 0.4:
        reach = towards * rng.uniform(2.0, 4.5)
        bracket = np.array([(x, 3.3, z), (x, 5.6, z), (x + reach, 5.9, z)])
        canvas.limb(bracket, 0.13, vary(rng, pick(rng, METAL)), Label.POLE)
        _draw_light_box(canvas, rng, x + reach, 5.6, z, None if back else lit)


def _draw_light_box(
    canvas: Canvas, rng: Generator, x: float, y: float, z: float, lit: int | None
) -> None:
    case = vary(rng, pick(rng, ((34, 38, 38), (44, 60, 50), (70, 72, 72))), 8.0)
    half, tall = rng.uniform(0.17, 0.24), rng.uniform(0.48, 0.62)
    box = np.array([(-half, -tall), (half, -tall), (half, tall), (-half, tall)])
    centre, scale = canvas.camera.project(np.array([x, y, z])), canvas.camera.scale(z)
    canvas.polygon(centre + box * scale, case, Label.TRAFFIC_LIGHT, z)
    if lit is None:
        return
    for i, colour in enumerate(LAMPS):
        lamp = colour if i == lit else shade(colour, 0.22)
        at = centre + np.array([0.0, (i - 1) * 0.62 * tall * scale])
        canvas.polygon(at + CIRCLE * 0.62 * half * scale, lamp, None, z)


def draw_traffic_sign(canvas: Canvas, rng: Generator, place: Place) -> None:
    """One or two signs on a thin pole."""
    x, z = place.x, place.z
    height = rng.uniform(2.2, 3.1)
    draw_pole(canvas, rng, place, height, 0.08)
    for level in range(1 + int(rng.random() < 0.3)):
        at = np.array([x, height - 0.8 * level, z])
        draw_sign_face(canvas, rng, at, rng.uniform(0.3, 0.48))


def draw_sign_face(canvas: Canvas, rng: Generator, at: np.ndarray, radius: float) -> None:
    """The sign itself; shape and colours are drawn apart, so that neither gives it away."""
    face, rim, symbol = pick(rng, SIGNS)
    outline = pick(rng, OUTLINES)
    turn = np.array([rng.uniform(0.55, 1.0), 1.0])  # seen at an angle
    light = canvas.light.on(0.0, 0.0, -1.0)
    centre = canvas.camera.project(at)
    pixels = outline * turn * radius * canvas.camera.scale(at[2])
    depth = float(at[2])
    canvas.polygon(centre + pixels, shade(vary(rng, rim), light), Label.TRAFFIC_SIGN, depth)
    canvas.polygon(centre + 0.74 * pixels, shade(vary(rng, face), light), None, depth)
    mark = pixels * rng.uniform((0.12, 0.12), (0.5, 0.5))
    canvas.polygon(centre + mark, shade(symbol, light), None, depth)


def draw_direction_board(canvas: Canvas, rng: Generator, place: Place, towards: int) -> None:
    """A large board with lines of lettering beside or over the road."""
    x, z = place.x, place.z
    wide, tall = rng.uniform(1.6, 3.2), rng.uniform(0.9, 1.8)
    overhead = rng.random() < 0.5
    low = rng.uniform(4.5, 5.0) if overhead else rng.uniform(1.2, 2.6)
    ends = sorted((x, x + (towards if overhead else -towards) * wide))
    draw_pole(canvas, rng, place, low + tall, 0.16)
    if not overhead:
        draw_pole(canvas, rng, Place(x - towards * wide, z), low + tall, 0.16)
    board = vary(rng, pick(rng, ((36, 84, 164), (40, 110, 76), (226, 190, 60), (226, 226, 222))))
    light = canvas.light.on(0.0, 0.0, -1.0)
    corners = [(ends[0], low, z), (ends[1], low, z), (ends[1], low + tall, z)]
    corners.append((ends[0], low + tall, z))
    canvas.fill(corners, shade(board, light), Label.TRAFFIC_SIGN)
    ink: Colour = (230, 230, 230) if sum(board) < 380 else (50, 50, 54)
    for line in np.arange(low + 0.25, low + tall - 0.2, 0.4):
        text = np.array(
            [(ends[0] + 0.2, line, z), (ends[0] + wide * rng.uniform(0.5, 0.9), line, z)]
        )
        canvas.limb(text, 0.12, shade(ink, light), None)


def draw_clutter(canvas: Canvas, rng: Generator, place: Place) -> None:
    """Bins, boxes, cones and advertisements: static things that Cityscapes leaves out."""
    x, z = place.x, place.z
    wide, tall = rng.uniform(0.2, 0.8), rng.uniform(0.4, 1.3)
    paint = vary(rng, pick(rng, ((70, 74, 70), (150, 110, 60), (60, 90, 70), (200, 110, 50))), 30)
    body = [(x - wide / 2, 0, z), (x + wide / 2, 0, z), (x + 0.4 * wide, tall, z)]
    body.append((x - 0.4 * wide, tall, z))
    canvas.fill(body, paint, Label.IGNORE)
    lid = np.array([(x - wide / 2, tall, z), (x + wide / 2, tall, z)])
    canvas.limb(lid, 0.1, shade(paint, 0.7), Label.IGNORE)
