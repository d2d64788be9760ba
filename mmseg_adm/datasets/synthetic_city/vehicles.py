"""Cars, trucks, buses and trams: side profiles pulled across the width of the vehicle."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from .canvas import CIRCLE, Canvas, Place, subquad
from .colours import Colour, pick, shade, vary
from .labels import Label

PAINTS: tuple[Colour, ...] = (
    (36, 36, 40), (206, 206, 204), (150, 154, 158), (96, 100, 104), (140, 36, 36), (42, 62, 110),
    (176, 164, 142), (64, 82, 66), (96, 70, 58), (120, 140, 156),
)  # fmt: skip
LIVERIES: tuple[Colour, ...] = (
    (208, 172, 52), (176, 44, 40), (210, 208, 202), (54, 96, 130), (70, 116, 84), (140, 140, 142),
)  # fmt: skip
GLASS: Colour = (44, 52, 60)
RUBBER: Colour = (30, 30, 32)
DETAIL_PIXELS = 8.0  # cars lower than this get no wheels and no lamps

Profile = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Shape:
    """A kind of vehicle.

    Args:
        size: Length, height and width in metres.
        profile: (along, up) in fractions of length and height, from the rear bumper over the
            roof to the front bumper.
        glass: Which edges of the profile are window screens.
        windows: Side windows, in the profile's fractions.
        taper: How much narrower the roof is than the belt line.
    """

    size: tuple[float, float, float]
    profile: Profile
    glass: tuple[int, ...]
    windows: tuple[Profile, ...]
    taper: float = 0.22


SALOON = Shape(
    (4.5, 1.45, 1.8),
    ((-0.5, 0.2), (-0.49, 0.62), (-0.36, 0.68), (-0.22, 0.98), (0.08, 1.0), (0.27, 0.66),
     (0.47, 0.55), (0.5, 0.2)),
    (2, 4),
    (((-0.3, 0.68), (-0.19, 0.92), (-0.07, 0.93), (-0.07, 0.68)),
     ((-0.05, 0.68), (-0.05, 0.93), (0.07, 0.93), (0.22, 0.67))),
)  # fmt: skip
HATCHBACK = Shape(
    (4.0, 1.5, 1.75),
    ((-0.5, 0.2), (-0.5, 0.6), (-0.39, 0.97), (0.06, 1.0), (0.26, 0.64), (0.46, 0.54), (0.5, 0.2)),
    (1, 3),
    (((-0.42, 0.66), (-0.34, 0.92), (-0.1, 0.93), (-0.1, 0.66)),
     ((-0.07, 0.66), (-0.07, 0.93), (0.05, 0.93), (0.2, 0.65))),
)  # fmt: skip
JEEP = Shape(
    (4.6, 1.8, 1.9),
    ((-0.5, 0.24), (-0.5, 0.64), (-0.45, 0.98), (0.12, 1.0), (0.24, 0.66), (0.47, 0.6),
     (0.5, 0.24)),
    (1, 3),
    (((-0.44, 0.68), (-0.41, 0.92), (-0.12, 0.93), (-0.12, 0.68)),
     ((-0.09, 0.68), (-0.09, 0.93), (0.1, 0.93), (0.2, 0.67))),
    0.14,
)  # fmt: skip
VAN = Shape(
    (5.2, 2.2, 1.95),
    ((-0.5, 0.16), (-0.5, 0.58), (-0.48, 0.98), (0.2, 1.0), (0.36, 0.58), (0.48, 0.48),
     (0.5, 0.16)),
    (1, 3),
    (((0.06, 0.6), (0.06, 0.9), (0.19, 0.9), (0.31, 0.6)),),
    0.1,
)  # fmt: skip
CARS = (SALOON, SALOON, HATCHBACK, HATCHBACK, JEEP, VAN)
CAB = Shape(
    (2.2, 2.8, 2.4),
    ((-0.5, 0.2), (-0.5, 1.0), (0.3, 1.0), (0.48, 0.5), (0.5, 0.2)),
    (2,),
    (((-0.2, 0.52), (-0.2, 0.86), (0.28, 0.86), (0.4, 0.52)),),
    0.05,
)
BOX: Profile = ((-0.5, 0.25), (-0.5, 1.0), (0.5, 1.0), (0.5, 0.25))
COACH: Profile = ((-0.5, 0.1), (-0.5, 0.94), (-0.48, 1.0), (0.47, 1.0), (0.5, 0.9), (0.5, 0.1))
TRAM: Profile = (
    (-0.5, 0.05), (-0.5, 0.5), (-0.485, 0.98), (-0.47, 1.0), (0.47, 1.0), (0.485, 0.98),
    (0.5, 0.5), (0.5, 0.05),
)  # fmt: skip


class Body:
    """A profile pulled across a vehicle and projected; knows which panels the camera sees."""

    def __init__(self, canvas: Canvas, place: Place, shape: Shape, shift: float = 0.0) -> None:
        self.canvas, self.place, self.shape, self.shift = canvas, place, shape, shift
        corners = np.array([self._points(shape.profile, side) for side in (-1.0, 1.0)])
        self.depths = corners[..., 2].mean(0)
        self.pixels = canvas.camera.project(corners)
        left, right = self.pixels
        self.quads = np.stack([left[:-1], right[:-1], right[1:], left[1:]], axis=1)
        diagonal, other = self.quads[:, 2] - self.quads[:, 0], self.quads[:, 3] - self.quads[:, 1]
        self.seen = diagonal[:, 0] * other[:, 1] < diagonal[:, 1] * other[:, 0]
        self.height = shape.size[1] * canvas.camera.scale(place.z)

    def _points(self, profile: Profile, side: float) -> np.ndarray:
        length, height, width = self.shape.size
        local = np.empty((len(profile), 3))
        fractions = np.asarray(profile)
        local[:, 0] = fractions[:, 0] * length + self.shift
        local[:, 1] = fractions[:, 1] * height
        narrow = 1.0 - self.shape.taper * np.clip((fractions[:, 1] - 0.6) / 0.4, 0.0, 1.0)
        local[:, 2] = 0.5 * side * width * narrow
        return self.place.world(local)

    def panel(self, edge: int) -> np.ndarray | None:
        """Panel over this edge as (lower left, lower right, upper right, upper left) pixels."""
        if not self.seen[edge]:
            return None
        rising = self.shape.profile[edge + 1][1] >= self.shape.profile[edge][1]
        return self.quads[edge] if rising else self.quads[edge, [2, 3, 0, 1]]

    def near_side(self) -> float | None:
        """-1 or +1 for the flank the camera sees, None when neither is seen."""
        left, right = (cv2.contourArea(flank.astype(np.float32), True) for flank in self.pixels)
        return 1.0 if right > 0.0 else -1.0 if left < 0.0 else None

    def on_side(self, profile: Profile, side: float) -> np.ndarray:
        """Pixels of an outline on a flank."""
        return self.canvas.camera.project(self._points(profile, side))

    def paint(self, paint: Colour, label: Label) -> None:
        """Panels from far to near, then the flank."""
        edges = range(len(self.shape.profile) - 1)
        for edge in sorted(edges, key=lambda i: -self.depths[i] - self.depths[i + 1]):
            quad = self.panel(edge)
            if quad is None:
                continue
            depth = float(self.depths[edge])
            self.canvas.polygon(quad, shade(paint, self._light_on(edge)), label, depth)
            if edge in self.shape.glass:
                pane = subquad(quad, 0.06, 0.08, 0.94, 0.9)
                self.canvas.polygon(pane, self.glass(), None, depth)
        side = self.near_side()
        if side is not None:
            facing = self.place.world([0.0, 0.0, side]) - (self.place.x, 0.0, self.place.z)
            tone = shade(paint, self.canvas.light.on(*facing))
            depth = float(self.depths.mean())
            self.canvas.polygon(self.pixels[(int(side) + 1) // 2], tone, label, depth)
            for window in self.shape.windows:
                self.canvas.polygon(self.on_side(window, side), self.glass(), None, depth)

    def glass(self) -> Colour:
        """Dark, with some of the sky in it."""
        red, green, blue = (
            0.72 * own + 0.28 * sky
            for own, sky in zip(GLASS, self.canvas.light.sky_low, strict=True)
        )
        return red, green, blue

    def _light_on(self, edge: int) -> float:
        (along, up), (next_along, next_up) = self.shape.profile[edge : edge + 2]
        length, height, _ = self.shape.size
        normal = np.array([(up - next_up) * height, (next_along - along) * length, 0.0])
        normal /= np.linalg.norm(normal) + 1e-9
        right, rise, ahead = self.place.world(normal) - (self.place.x, 0.0, self.place.z)
        return self.canvas.light.on(right, rise, ahead)

    def wheels(self, axles: tuple[float, ...], radius: float, label: Label, hubs: bool) -> None:
        """Tyres under the body, or hubs on the flank once the body is painted."""
        length, _, width = self.shape.size
        side = self.near_side()
        for axle in axles:
            rim = np.zeros((len(CIRCLE), 3))
            rim[:, 0] = axle * length + self.shift + radius * CIRCLE[:, 0]
            rim[:, 1] = radius * (1.0 + CIRCLE[:, 1])
            if not hubs:
                for flank in (-1.0, 1.0):
                    solid = np.concatenate([rim, rim])
                    solid[:, 2] = flank * 0.5 * width
                    solid[len(rim) :, 2] -= flank * 0.22
                    self.canvas.hull(self.place.world(solid), RUBBER, label)
            elif side is not None:
                rim[:, 2] = side * (0.5 * width + 0.01)
                self.canvas.fill(self.place.world(rim), RUBBER, label)
                rim[:, :2] += 0.45 * ((axle * length + self.shift, radius) - rim[:, :2])
                self.canvas.fill(self.place.world(rim), (128, 130, 132), None)


def draw_car(canvas: Canvas, rng: Generator, place: Place) -> None:
    """A saloon, hatchback, jeep or van."""
    shape, paint = pick(rng, CARS), vary(rng, pick(rng, PAINTS), 14.0)
    body = Body(canvas, place, shape)
    if body.height < DETAIL_PIXELS:
        body.paint(paint, Label.CAR)
        return
    body.wheels((-0.31, 0.32), 0.33, Label.CAR, hubs=False)
    body.paint(paint, Label.CAR)
    body.wheels((-0.31, 0.32), 0.33, Label.CAR, hubs=True)
    draw_ends(body, paint, lamp_height=0.72)


def draw_ends(body: Body, paint: Colour, lamp_height: float) -> None:
    """Lamps, number plate and bumper on whichever end is seen."""
    last = len(body.shape.profile) - 2
    for edge, lamp in ((0, (170, 30, 30)), (last, (226, 226, 214))):
        quad = body.panel(edge)
        if quad is None:
            continue
        depth = float(body.depths[edge])
        details: list[tuple[tuple[float, float, float, float], Colour]] = [
            ((0.0, 0.0, 1.0, 0.22), shade(paint, 0.45)),
            ((0.36, 0.28, 0.64, 0.44), (206, 206, 200)),
            ((0.03, lamp_height - 0.2, 0.2, lamp_height + 0.12), lamp),
            ((0.8, lamp_height - 0.2, 0.97, lamp_height + 0.12), lamp),
        ]
        if edge == last:
            details.append(((0.28, 0.5, 0.72, 0.8), (40, 40, 44)))
        for box, colour in details:
            body.canvas.polygon(subquad(quad, *box), colour, None, depth)
