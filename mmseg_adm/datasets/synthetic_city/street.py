"""The plan of a street: lanes, kerbs, pavements, and what each side is made of."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

from numpy.random import Generator

from .colours import pick

FAR = 220.0  # metres; the road ends in the haze here

# What stands along a side, and how often, by the side's character.
CHARACTERS: dict[str, dict[str, float]] = {
    'urban': {'building': 0.84, 'side_street': 0.07, 'walled': 0.05, 'fenced': 0.04},
    'suburb': {'house': 0.46, 'building': 0.16, 'park': 0.12, 'walled': 0.12, 'side_street': 0.14},
    'green': {'park': 0.58, 'fenced': 0.2, 'house': 0.12, 'side_street': 0.1},
    'works': {'walled': 0.36, 'building': 0.34, 'fenced': 0.22, 'side_street': 0.08},
}


@dataclass(frozen=True)
class Lane:
    """A lane's middle line and the heading of its traffic."""

    x: float
    heading: float


@dataclass(frozen=True)
class Lot:
    """A piece of a side, from ``near`` to ``far`` metres ahead."""

    kind: str
    near: float
    far: float


@dataclass(frozen=True)
class Side:
    """One side of the street, outwards: parking, kerb, verge, pavement, lots.

    Args:
        sign: -1 left, +1 right.
        kerb: x of the kerb.
        line: x where the lots begin.
        parking: Width of the parking lane before the kerb, 0 for none.
        verge: Width of the strip of grass behind the kerb, 0 for none.
        trees: Whether trees line it.
        lots: From near to far, without gaps.
    """

    sign: int
    kerb: float
    line: float
    parking: float
    verge: float
    trees: bool
    lots: tuple[Lot, ...]

    def beyond(self, metres: float) -> float:
        """The x this far behind the kerb."""
        return self.kerb + self.sign * metres


@dataclass(frozen=True)
class Street:
    """A whole street; ``tram`` is the lane with rails, ``crossing`` the zebra's depth."""

    lane_width: float
    lanes: tuple[Lane, ...]
    sides: tuple[Side, Side]
    tram: Lane | None
    crossing: float | None


def sample_street(rng: Generator, tram: bool, demand: str | None = None) -> Street:
    """A street of one to four lanes, the camera's own at x = 0 or nearly.

    Args:
        rng: Source of chance.
        tram: Whether one of the lanes carries rails.
        demand: A kind of lot that must stand on the right, None to leave it to chance.
    """
    width = rng.uniform(2.9, 3.7)
    offset = rng.normal(0.0, 0.25)
    own, oncoming = int(rng.integers(1, 3)), int(rng.choice(3, p=(0.15, 0.65, 0.2)))
    if tram and oncoming == 0:
        oncoming = 1
    index = int(rng.integers(own))
    lanes = [Lane(offset + (i - index) * width, 0.0) for i in range(own)]
    lanes += [Lane(offset - (index + 1 + i) * width, pi) for i in range(oncoming)]
    left = offset - (index + oncoming + 0.5) * width
    right = offset + (own - index - 0.5) * width
    names = ('urban', 'urban', 'suburb', 'green', 'works')
    sides = [
        _sample_side(rng, -1, left, pick(rng, names), None),
        _sample_side(rng, 1, right, pick(rng, names), demand),
    ]
    rails = None
    if tram:
        rails = next(lane for lane in lanes if lane.heading == pi)
    crossing = rng.uniform(9, 35) if rng.random() < 0.3 else None
    return Street(width, tuple(lanes), (sides[0], sides[1]), rails, crossing)


def _sample_side(
    rng: Generator, sign: int, edge: float, character: str, demand: str | None
) -> Side:
    parking = 2.2 if rng.random() < 0.42 else 0.0
    verge = rng.uniform(0.8, 2.6) if rng.random() < 0.35 else 0.0
    pavement = rng.uniform(1.8, 5.2)
    kerb = edge + sign * parking
    return Side(
        sign=sign,
        kerb=kerb,
        line=kerb + sign * (verge + pavement),
        parking=parking,
        verge=verge,
        trees=rng.random() < (0.75 if verge else 0.3),
        lots=_sample_lots(rng, CHARACTERS[character], demand),
    )


def _sample_lots(rng: Generator, weights: dict[str, float], demand: str | None) -> tuple[Lot, ...]:
    lots: list[Lot] = []
    far = rng.uniform(0.0, 4.0)
    while far < 120.0:
        kind = list(weights)[int(rng.choice(len(weights), p=list(weights.values())))]
        if demand is not None and 8.0 < far < 30.0:
            kind = demand  # where it is neither out of the picture nor tiny
        near = far
        far = near + (rng.uniform(6.0, 10.0) if kind == 'side_street' else rng.uniform(8.0, 22.0))
        lots.append(Lot(kind, near, far))
    return tuple(lots)
