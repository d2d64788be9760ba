"""Trucks, buses and trams."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from .canvas import Canvas, Place, subquad
from .colours import Colour, pick, shade, vary
from .labels import Label
from .vehicles import BOX, CAB, COACH, LIVERIES, PAINTS, TRAM, Body, Profile, Shape, draw_ends

CARGO: tuple[Colour, ...] = ((204, 204, 200), (176, 176, 172), (120, 96, 74), (96, 110, 124))
DISPLAY: Colour = (226, 150, 50)
TRAM_CAR = 9.0  # metres

Box = tuple[float, float, float, float]  # left, low, right, high of a panel


def draw_truck(canvas: Canvas, rng: Generator, place: Place) -> None:
    """A cab with a box or a flat bed behind it."""
    length = rng.uniform(4.0, 7.5)
    bed = rng.random() < 0.2
    size = (length, rng.uniform(1.2, 1.7) if bed else rng.uniform(2.9, 3.7), 2.45)
    cab = Body(canvas, place, CAB, shift=length / 2 + 1.0)
    load = Body(canvas, place, Shape(size, BOX, (), (), 0.0), shift=-0.3)
    cab_paint = vary(rng, pick(rng, (*PAINTS, *LIVERIES)), 14.0)
    load_paint = vary(rng, pick(rng, (*CARGO, *LIVERIES)), 14.0)
    cab.wheels((0.0,), 0.48, Label.TRUCK, hubs=False)
    load.wheels((-0.3, -0.1), 0.48, Label.TRUCK, hubs=False)
    away = load.depths.mean() < cab.depths.mean()
    painted = [(cab, cab_paint), (load, load_paint)]
    for body, paint in painted if away else painted[::-1]:
        body.paint(paint, Label.TRUCK)
    cab.wheels((0.0,), 0.48, Label.TRUCK, hubs=True)
    load.wheels((-0.3, -0.1), 0.48, Label.TRUCK, hubs=True)
    doors = load.panel(0)
    if away and doors is not None:
        seam, depth = shade(load_paint, 0.6), float(load.depths[0])
        canvas.polygon(subquad(doors, 0.49, 0.02, 0.51, 0.98), seam, None, depth)
        canvas.polygon(subquad(doors, 0.0, 0.0, 1.0, 0.05), (60, 60, 62), None, depth)
        for left in (0.02, 0.86):
            canvas.polygon(subquad(doors, left, 0.0, left + 0.12, 0.05), (170, 36, 32), None, depth)
    elif not away:
        draw_ends(cab, cab_paint, lamp_height=0.2)
    side = load.near_side()
    if side is not None and not bed:
        band: Profile = ((-0.4, 0.5), (-0.4, 0.75), (0.4, 0.75), (0.4, 0.5))
        canvas.polygon(load.on_side(band, side), vary(rng, load_paint, 30.0), None, place.z)


def draw_bus(canvas: Canvas, rng: Generator, place: Place) -> None:
    """A city bus: a band of windows, doors, wheels, a lit display."""
    paint = vary(rng, pick(rng, LIVERIES), 14.0)
    shape = Shape((rng.uniform(8.5, 12.0), rng.uniform(2.9, 3.3), 2.5), COACH, (), (), 0.0)
    body = Body(canvas, place, shape)
    body.wheels((-0.28, 0.3), 0.48, Label.BUS, hubs=False)
    body.paint(paint, Label.BUS)
    skirt: Profile = ((-0.5, 0.1), (-0.5, 0.25), (0.5, 0.25), (0.5, 0.1))
    _draw_flank(body, rng, paint, windows=int(rng.integers(5, 8)), skirt=skirt)
    body.wheels((-0.28, 0.3), 0.48, Label.BUS, hubs=True)
    lamps = ((0.04, 0.08, 0.18, 0.18), (0.82, 0.08, 0.96, 0.18))
    _draw_cab_end(body, 4, (0.05, 0.3, 0.95, 0.86), lamps)
    rear = body.panel(0)
    if rear is not None:
        depth = float(body.depths[0])
        canvas.polygon(subquad(rear, 0.08, 0.5, 0.92, 0.88), body.glass(), None, depth)
        for left in (0.02, 0.88):
            canvas.polygon(subquad(rear, left, 0.1, left + 0.1, 0.35), (170, 36, 32), None, depth)


def draw_tram_car(canvas: Canvas, rng: Generator, place: Place, paint: Colour, leads: bool) -> None:
    """A car of a tram: no wheels show; the one that leads has a cab end and the pantograph."""
    body = Body(canvas, place, Shape((TRAM_CAR, 3.3, 2.4), TRAM, (), (), 0.0))
    body.paint(paint, Label.TRAIN)
    skirt: Profile = ((-0.5, 0.05), (-0.5, 0.16), (0.5, 0.16), (0.5, 0.05))
    _draw_flank(body, rng, paint, windows=5, skirt=skirt)
    if not leads:
        return
    lamps = ((0.06, 0.45, 0.2, 0.65), (0.8, 0.45, 0.94, 0.65))
    _draw_cab_end(body, 5, (0.06, 0.0, 0.94, 0.82), lamps)
    arms = [(-2.0, 3.3, 0.0), (-1.2, 4.1, 0.0), (-2.0, 4.8, 0.0)]
    canvas.limb(place.world(arms), 0.06, (60, 60, 62), Label.TRAIN)


def _draw_flank(body: Body, rng: Generator, paint: Colour, windows: int, skirt: Profile) -> None:
    side = body.near_side()
    if side is None:
        return
    canvas, depth = body.canvas, body.place.z
    canvas.polygon(body.on_side(skirt, side), shade(paint, rng.uniform(0.4, 0.8)), None, depth)
    starts = np.linspace(-0.47, 0.47, windows + 1)
    for start, end in zip(starts, starts[1:] - 0.012, strict=False):
        low = 0.18 if rng.random() < 0.25 else 0.45  # doors reach down
        pane: Profile = ((start, low), (start, 0.84), (end, 0.84), (end, low))
        canvas.polygon(body.on_side(pane, side), body.glass(), None, depth)


def _draw_cab_end(body: Body, edge: int, pane: Box, lamps: tuple[Box, ...]) -> None:
    """Windscreen, destination and lamps, when the vehicle comes towards the camera."""
    screen, nose = body.panel(edge), body.panel(len(body.shape.profile) - 2)
    if screen is None or nose is None:
        return
    canvas, depth = body.canvas, float(body.depths[edge])
    canvas.polygon(subquad(screen, *pane), body.glass(), None, depth)
    canvas.polygon(subquad(screen, 0.2, 0.9, 0.8, 0.98), DISPLAY, None, depth)
    for lamp in lamps:
        canvas.polygon(subquad(nose, *lamp), (230, 228, 214), None, depth)
