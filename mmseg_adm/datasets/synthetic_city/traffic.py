"""What moves on the road."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import pi

from numpy.random import Generator

from .canvas import Place
from .colours import pick, vary
from .heavy import TRAM_CAR, draw_bus, draw_tram_car, draw_truck
from .labels import Label
from .people import draw_bicycle, draw_motorcycle, draw_person
from .props import Prop, standing
from .street import Lane, Street
from .vehicles import LIVERIES, draw_car

Vehicle = tuple[Callable[..., None], tuple[float, float]]
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
INVITED: dict[Label | None, Vehicle] = {
    Label.BUS: (draw_bus, (11.0, 2.5)),
    Label.TRUCK: (draw_truck, (8.5, 2.5)),
    Label.MOTORCYCLE: (ride_motorcycle, (2.0, 0.5)),
    Label.RIDER: (ride_bicycle, (1.6, 0.4)),
}


def drive(rng: Generator, street: Street, guest: Label | None) -> list[Prop]:
    """The traffic of every lane, a tram if there are rails, and people who cross.

    Args:
        rng: Source of chance.
        street: Where.
        guest: A class whose vehicle heads one of the queues, near enough to count.
    """
    props = []
    free = [lane for lane in street.lanes if lane is not street.tram]
    host = pick(rng, free)
    for lane in free:
        props += _queue(rng, lane, INVITED.get(guest) if lane is host else None)
    if street.tram is not None:
        props += _tram(rng, street.tram)
    if street.crossing is not None or rng.random() < 0.2:
        props += _crossing(rng, street)
    if rng.random() < 0.15:  # somebody turns into a side street
        draw, size, _ = pick(rng, KINDS)
        place = Place(rng.uniform(-5.0, 5.0), rng.uniform(14.0, 40.0), pick(rng, (-0.5, 0.5)) * pi)
        props.append(standing(draw, place, size))
    return props


def _queue(rng: Generator, lane: Lane, first: Vehicle | None) -> list[Prop]:
    props = []
    at = rng.uniform(7.0, 45.0) if first is None else rng.uniform(8.0, 20.0)
    while at < 75.0:
        shares = [share for _, _, share in KINDS]
        draw, size, _ = KINDS[int(rng.choice(len(KINDS), p=shares))]
        if first is not None:
            (draw, size), first = first, None
        x = lane.x + rng.normal(0.0, 0.3)
        place = Place(x, at + size[0] / 2, lane.heading + rng.normal(0, 0.03))
        props.append(standing(draw, place, size))
        at += size[0] + rng.uniform(3.0, 40.0)
    return props


def _tram(rng: Generator, lane: Lane) -> list[Prop]:
    """Two or three coupled cars, each with a turn of its own among the things it passes."""
    paint, at = vary(rng, pick(rng, LIVERIES), 14.0), rng.uniform(13.0, 30.0)
    props = []
    for number in range(int(rng.integers(2, 4))):
        place = Place(lane.x, at + number * (TRAM_CAR + 0.3), lane.heading)
        size, leads = (TRAM_CAR, 2.4), number == 0
        props.append(standing(draw_tram_car, place, size, paint=paint, leads=leads))
    return props


def _crossing(rng: Generator, street: Street) -> list[Prop]:
    depth = (street.crossing or rng.uniform(9.0, 30.0)) + 1.5
    left, right = (side.kerb for side in street.sides)
    props = []
    for _ in range(int(rng.integers(1, 4))):
        heading = pick(rng, (-0.5, 0.5)) * pi + rng.normal(0, 0.2)
        place = Place(rng.uniform(left, right), depth + rng.normal(0, 0.6), heading)
        props.append(standing(draw_person, place, (0.5, 0.5)))
    return props
