"""What moves on the road, and the rare guests that every few scenes must show."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi

from numpy.random import Generator

from .canvas import Place
from .colours import pick
from .heavy import draw_bus, draw_tram, draw_truck
from .labels import Label
from .lots import draw_wall
from .people import draw_bicycle, draw_motorcycle, draw_person
from .props import Prop, standing
from .roadside import railing
from .street import Lane, Lot, Street
from .vehicles import draw_car

ride_motorcycle = partial(draw_motorcycle, ridden=True)
ride_bicycle = partial(draw_bicycle, ridden=True)
# How each kind is drawn, its length and width, and its share of the traffic.
KINDS: tuple[tuple[Callable[..., None], tuple[float, float], float], ...] = (
    (draw_car, (4.4, 1.8), 0.74),
    (draw_truck, (8.5, 2.5), 0.07),
    (draw_bus, (11.0, 2.5), 0.06),
    (ride_motorcycle, (2.0, 0.5), 0.06),
    (ride_bicycle, (1.6, 0.4), 0.07),
)
# Scenes with consecutive seeds take turns, so that a small data set shows every class.
GUESTS = (
    Label.TRAIN,
    Label.BUS,
    Label.WALL,
    Label.TRUCK,
    Label.MOTORCYCLE,
    Label.FENCE,
    Label.RIDER,
    Label.TRAFFIC_LIGHT,
)


def drive(rng: Generator, street: Street) -> list[Prop]:
    """The traffic of every lane, a tram if there are rails, and people who cross."""
    props = []
    for lane in street.lanes:
        if lane is street.tram:
            place = Place(lane.x, rng.uniform(12.0, 28.0), lane.heading)
            props.append(standing(draw_tram, place, (9.0, 2.4)))
        else:
            props += _queue(rng, lane)
    if street.crossing is not None or rng.random() < 0.2:
        depth = (street.crossing or rng.uniform(9.0, 30.0)) + 1.5
        left, right = (side.kerb for side in street.sides)
        for _ in range(int(rng.integers(1, 4))):
            heading = pick(rng, (-0.5, 0.5)) * pi + rng.normal(0, 0.2)
            place = Place(rng.uniform(left, right), depth + rng.normal(0, 0.6), heading)
            props.append(standing(draw_person, place, (0.5, 0.5)))
    if rng.random() < 0.15:  # somebody turns into a side street
        draw, size, _ = pick(rng, KINDS)
        place = Place(rng.uniform(-5.0, 5.0), rng.uniform(14.0, 40.0), pick(rng, (-0.5, 0.5)) * pi)
        props.append(standing(draw, place, size))
    return props


def _queue(rng: Generator, lane: Lane) -> list[Prop]:
    props = []
    shares = [share for _, _, share in KINDS]
    at = rng.uniform(7.0, 45.0)
    while at < 110.0:
        draw, size, _ = KINDS[int(rng.choice(len(KINDS), p=shares))]
        x = lane.x + rng.normal(0.0, 0.3)
        place = Place(x, at + size[0] / 2, lane.heading + rng.normal(0, 0.03))
        props.append(standing(draw, place, size))
        at += size[0] + rng.uniform(3.0, 40.0)
    return props


def invite(rng: Generator, street: Street, guest: Label) -> list[Prop]:
    """One more thing of a rare class, near enough to count; a tram needs rails instead."""
    side = pick(rng, street.sides)
    lane = pick(rng, street.lanes)
    near = rng.uniform(9.0, 22.0)
    if guest == Label.WALL:
        lot = Lot('walled', near, near + rng.uniform(10.0, 30.0))
        height = rng.uniform(1.2, 2.6)
        return [Prop(lot.near + 5.0, partial(draw_wall, side=side, lot=lot, height=height))]
    if guest == Label.FENCE:
        return [railing(side, near - 4.0, near + rng.uniform(5.0, 15.0))]
    vehicles: dict[Label, tuple[Callable[..., None], tuple[float, float]]] = {
        Label.BUS: (draw_bus, (11.0, 2.5)),
        Label.TRUCK: (draw_truck, (8.5, 2.5)),
        Label.MOTORCYCLE: (ride_motorcycle, (2.0, 0.5)),
        Label.RIDER: (ride_bicycle, (1.6, 0.4)),
    }
    if guest not in vehicles:
        return []
    draw, size = vehicles[guest]
    place = Place(lane.x, near + size[0] / 2, lane.heading + rng.normal(0, 0.05))
    return [standing(draw, place, size)]
