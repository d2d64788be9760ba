"""What lines a street: lots, parked cars, lamps, signs, lights, trees, bicycles, walkers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi

import numpy as np
from numpy.random import Generator

from .canvas import Place
from .furniture import (
    draw_clutter,
    draw_direction_board,
    draw_lamp_post,
    draw_pole,
    draw_traffic_light,
    draw_traffic_sign,
)
from .lots import draw_fence, draw_lot
from .people import draw_bicycle, draw_motorcycle, draw_person
from .plants import draw_tree
from .props import Prop, standing
from .street import Side, Street
from .vehicles import draw_car

FOOT = (0.2, 0.2)


def line_side(rng: Generator, street: Street, side: Side) -> list[Prop]:
    """Everything along one side, in no order."""
    props = [
        Prop(side.line, lot.far, 4.0, partial(draw_lot, side=side, lot=lot)) for lot in side.lots
    ]
    props += _parked_cars(rng, side) if side.parking else []
    props += _furniture(rng, side)
    props += _traffic_lights(rng, street, side)
    props += _walkers(rng, side)
    if side.trees:
        x = side.beyond(0.5 * side.verge if side.verge else 0.9)
        for at in np.arange(rng.uniform(5.0, 14.0), 75.0, rng.uniform(7.0, 14.0)):
            height = rng.uniform(4.5, 9.0)
            crown = 0.6 * height
            props.append(standing(draw_tree, Place(x, float(at)), (crown, crown), height=height))
    if rng.random() < 0.15:  # railings that keep walkers off the road
        near = rng.uniform(5.0, 25.0)
        far, x = near + rng.uniform(6.0, 20.0), side.beyond(0.3)
        props.append(Prop(x, far, 1.0, partial(draw_fence, x=x, reach=(near, far))))
    return props


def _parked_cars(rng: Generator, side: Side) -> list[Prop]:
    props = []
    at = rng.uniform(3.5, 9.0)
    while at < 75.0:
        if rng.random() < 0.7:
            x = side.kerb - side.sign * 1.1 + rng.normal(0, 0.1)
            heading = (0.0 if side.sign > 0 else pi) + rng.normal(0, 0.03)
            props.append(standing(draw_car, Place(x, at + 2.2, heading), (4.4, 1.8)))
        at += rng.uniform(5.0, 6.2)
    return props


def _furniture(rng: Generator, side: Side) -> list[Prop]:
    towards = -side.sign
    rows: tuple[tuple[Callable[..., None], float], ...] = (
        (partial(draw_lamp_post, towards=towards), rng.uniform(18.0, 35.0)),
        (draw_traffic_sign, rng.uniform(10.0, 40.0)),
        (partial(draw_pole, height=rng.uniform(0.9, 5.0)), rng.uniform(6.0, 60.0)),
        (partial(draw_direction_board, towards=towards), rng.uniform(60.0, 200.0)),
        (draw_clutter, rng.uniform(15.0, 60.0)),
    )
    props = []
    for draw, pitch in rows:
        x = side.beyond(rng.uniform(0.25, 0.6))
        for at in np.arange(rng.uniform(5.0, 5.0 + pitch), 65.0, pitch):
            props.append(standing(draw, Place(x, float(at)), FOOT))
    return props


def _traffic_lights(rng: Generator, street: Street, side: Side) -> list[Prop]:
    if rng.random() > (0.3 if street.crossing is None else 0.7):
        return []
    depth = street.crossing or rng.uniform(10.0, 35.0)
    place = Place(side.beyond(0.4), depth - 0.8)
    return [standing(draw_traffic_light, place, FOOT, towards=-side.sign)]


def _walkers(rng: Generator, side: Side) -> list[Prop]:
    props = []
    for _ in range(rng.poisson(2.6)):
        depth, step = 6.0 + rng.exponential(16.0), 0.0
        x = side.line - 0.3 * side.sign
        x += (side.beyond(side.verge + 0.5) - x) * rng.random()
        heading = float(rng.integers(2)) * pi + rng.normal(0.0, 0.4)
        for _ in range(1 + int(rng.random() < 0.3)):
            place = Place(x + step, depth, heading)
            props.append(standing(draw_person, place, (0.5, 0.5)))
            step += rng.uniform(0.5, 0.8)
    for draw, rate in ((draw_bicycle, 0.55), (draw_motorcycle, 0.25)):
        for _ in range(rng.poisson(rate)):
            depth = 6.0 + rng.exponential(14.0)
            heading = _heading(rng)
            x = side.beyond(rng.uniform(0.6, 1.6))
            for number in range(int(rng.integers(1, 4))):
                place = Place(x, depth + 0.8 * number, heading + rng.normal(0, 0.1))
                props.append(standing(draw, place, (1.7, 0.4)))
    return props


def _heading(rng: Generator) -> float:
    """Across the pavement more often than along it."""
    return float(rng.integers(4)) * pi / 2 if rng.random() < 0.5 else pi / 2 + rng.normal(0, 0.4)
