"""Persons, riders, bicycles and motorcycles, from skeletons of a few limbs."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import CIRCLE, Canvas, Place
from .colours import Colour, pick, shade, vary
from .labels import Label

CLOTHES: tuple[Colour, ...] = (
    (38, 40, 48), (62, 72, 96), (150, 44, 48), (190, 186, 178), (96, 92, 88), (60, 92, 72),
    (196, 150, 70), (120, 80, 100), (52, 96, 150), (140, 122, 100),
)  # fmt: skip
SKIN: tuple[Colour, ...] = ((206, 166, 140), (172, 126, 98), (116, 82, 62), (222, 186, 164))
HAIR: tuple[Colour, ...] = ((40, 34, 32), (92, 68, 48), (168, 140, 96), (150, 148, 146))
RUBBER: Colour = (34, 34, 36)


def draw_person(canvas: Canvas, rng: Generator, place: Place) -> None:
    """Somebody standing or walking, now and then with a coat, a bag or a child's size."""
    size = rng.uniform(0.6, 0.8) if rng.random() < 0.12 else rng.uniform(0.92, 1.08)
    stride = rng.uniform(0.0, 0.34)
    upper, lower = vary(rng, pick(rng, CLOTHES)), vary(rng, pick(rng, CLOTHES))
    for step, hip in ((stride, -0.1), (-stride, 0.1)):
        leg = [(0.0, 0.9, hip), (0.55 * step + 0.05, 0.48, hip), (step, 0.04, hip)]
        _limb(canvas, place, leg, size, 0.17, lower, Label.PERSON)
    hem = 0.5 if rng.random() < 0.25 else 0.84
    torso = [(0.08, 1.42, -0.2), (0.08, 1.42, 0.2), (-0.08, 1.42, -0.2), (-0.08, 1.42, 0.2)]
    torso += [(0.11, hem, -0.17), (0.11, hem, 0.17), (-0.11, hem, -0.17), (-0.11, hem, 0.17)]
    light = canvas.light.on(0.0, 0.2, -0.98)
    canvas.hull(place.world(size * np.array(torso)), shade(upper, light), Label.PERSON)
    for swing, shoulder in ((-stride, -0.24), (stride, 0.24)):
        arm = [(0.0, 1.38, shoulder), (0.4 * swing, 1.1, 1.15 * shoulder), (swing, 0.85, shoulder)]
        _limb(canvas, place, arm, size, 0.1, shade(upper, 0.88), Label.PERSON)
    if rng.random() < 0.3:
        bag = [(-0.12, 1.36, -0.15), (-0.12, 1.36, 0.15), (-0.3, 1.3, 0.0), (-0.3, 0.95, 0.0)]
        bag += [(-0.12, 0.92, -0.15), (-0.12, 0.92, 0.15)]
        canvas.hull(place.world(size * np.array(bag)), vary(rng, pick(rng, CLOTHES)), Label.PERSON)
    _draw_head(canvas, rng, place, size * np.array([0.0, 1.62, 0.0]), size, Label.PERSON)


def _limb(
    canvas: Canvas, place: Place, points: object, size: float, width: float, colour: Colour,
    label: Label,
) -> None:  # fmt: skip
    light = canvas.light.on(0.0, 0.2, -0.98)
    canvas.limb(place.world(size * np.asarray(points)), size * width, shade(colour, light), label)


def _draw_head(
    canvas: Canvas, rng: Generator, place: Place, at: np.ndarray, size: float, label: Label
) -> None:
    light = canvas.light.on(0.0, 0.2, -0.98)
    hair = vary(rng, pick(rng, (*HAIR, *CLOTHES)) if rng.random() < 0.4 else pick(rng, HAIR), 8.0)
    canvas.disc(place.world(at), 0.13 * size, shade(hair, light), label)
    # The face points where its owner goes; from behind there is only hair.
    face = place.world(at + size * np.array([0.06, -0.03, 0.0]))
    if face[2] <= place.z + 0.03 * size:
        canvas.disc(face, 0.1 * size, shade(pick(rng, SKIN), light), label)


def draw_bicycle(canvas: Canvas, rng: Generator, place: Place, ridden: bool = False) -> None:
    """A bicycle, with its rider or leaning on nothing."""
    frame = vary(rng, pick(rng, CLOTHES))
    for hub in (-0.52, 0.52):
        rim = np.zeros((len(CIRCLE) + 1, 3))
        rim[:-1, 0], rim[:-1, 1] = hub + 0.34 * CIRCLE[:, 0], 0.34 * (1.0 + CIRCLE[:, 1])
        rim[-1] = rim[0]
        wheel = place.world(rim)
        canvas.fill(wheel, None, Label.BICYCLE)  # what shows between the spokes counts
        canvas.limb(wheel, 0.06, RUBBER, Label.BICYCLE)
    tubes = (
        [(-0.52, 0.34, 0), (-0.1, 0.3, 0), (-0.22, 0.85, 0), (-0.52, 0.34, 0)],
        [(-0.1, 0.3, 0), (0.36, 0.8, 0), (-0.2, 0.75, 0)],
        [(0.52, 0.34, 0), (0.34, 0.98, 0)],
        [(0.32, 1.0, -0.27), (0.36, 1.0, 0.27)],
        [(-0.34, 0.88, 0), (-0.1, 0.9, 0)],
    )
    for tube in tubes:
        canvas.limb(place.world(tube), 0.06, frame, Label.BICYCLE)
    if ridden:
        _draw_rider(canvas, rng, place, saddle=0.92, reach=0.34, pedal=0.3)


def draw_motorcycle(canvas: Canvas, rng: Generator, place: Place, ridden: bool = False) -> None:
    """A motorcycle or scooter, with its rider or on its stand."""
    paint = vary(rng, pick(rng, CLOTHES))
    light = canvas.light.on(0.0, 0.4, -0.9)
    for hub in (-0.66, 0.66):
        rim = np.zeros((2 * len(CIRCLE), 3))
        circle = np.concatenate([CIRCLE, CIRCLE])
        rim[:, 0], rim[:, 1] = hub + 0.31 * circle[:, 0], 0.31 * (1.0 + circle[:, 1])
        rim[: len(CIRCLE), 2], rim[len(CIRCLE) :, 2] = -0.07, 0.07
        canvas.hull(place.world(rim), RUBBER, Label.MOTORCYCLE)
    solids: tuple[tuple[Colour, float, tuple[tuple[float, float], ...]], ...] = (
        (shade(paint, 0.45), 0.14, ((-0.4, 0.28), (0.3, 0.28), (0.36, 0.6), (-0.3, 0.62))),
        (paint, 0.17, ((-0.05, 0.6), (0.42, 0.55), (0.46, 0.92), (0.05, 0.92))),
        (shade(paint, 0.75), 0.15, ((-0.78, 0.72), (-0.6, 0.6), (0.05, 0.66), (0.05, 0.84))),
        (RUBBER, 0.14, ((-0.7, 0.78), (0.02, 0.78), (0.02, 0.86), (-0.7, 0.88))),
    )
    for colour, half, outline in solids:
        flat = np.array([(along, up, side) for side in (-half, half) for along, up in outline])
        canvas.hull(place.world(flat), shade(colour, light), Label.MOTORCYCLE)
    canvas.limb(
        place.world([(0.66, 0.3, 0), (0.42, 1.02, 0)]), 0.1, (96, 98, 100), Label.MOTORCYCLE
    )
    canvas.limb(
        place.world([(0.4, 1.04, -0.36), (0.42, 1.02, 0.36)]), 0.06, RUBBER, Label.MOTORCYCLE
    )
    ahead = place.world([1.0, 0.0, 0.0])[2] < place.z
    lamp = place.world([0.56, 0.88, 0.0] if ahead else [-0.8, 0.74, 0.0])
    canvas.disc(lamp, 0.09, (230, 226, 210) if ahead else (170, 34, 32), Label.MOTORCYCLE)
    if ridden:
        _draw_rider(canvas, rng, place, saddle=0.86, reach=0.38, pedal=0.34)


def _draw_rider(
    canvas: Canvas, rng: Generator, place: Place, saddle: float, reach: float, pedal: float
) -> None:
    """Somebody seated: hips on the saddle, hands on the bars, feet on the pedals."""
    upper, lower = vary(rng, pick(rng, CLOTHES)), vary(rng, pick(rng, CLOTHES))
    lean = rng.uniform(0.05, 0.3)
    for side, lift in ((-0.12, 0.0), (0.12, 0.22)):
        leg = [(-0.2, saddle, side), (0.18, saddle - 0.22 + lift, side), (0.0, pedal + lift, side)]
        _limb(canvas, place, leg, 1.0, 0.16, lower, Label.RIDER)
    neck = (lean - 0.12, saddle + 0.55)
    torso = [(neck[0] + d, neck[1], s) for d in (-0.08, 0.08) for s in (-0.2, 0.2)]
    torso += [(-0.24 + d, saddle - 0.04, s) for d in (-0.1, 0.1) for s in (-0.16, 0.16)]
    light = canvas.light.on(0.0, 0.3, -0.95)
    canvas.hull(place.world(np.array(torso)), shade(upper, light), Label.RIDER)
    for side in (-0.22, 0.22):
        arm = [(neck[0], neck[1] - 0.04, side), (0.2, saddle + 0.22, 1.2 * side)]
        arm.append((reach, saddle + 0.16, 1.1 * side))
        _limb(canvas, place, arm, 1.0, 0.1, shade(upper, 0.88), Label.RIDER)
    head = np.array([neck[0] + 0.05, neck[1] + 0.2, 0.0])
    _draw_head(canvas, rng, place, head, 1.05, Label.RIDER)
