"""A pinhole camera over a street, and the image and label map it draws on.

World coordinates are metres: x to the right of the camera, y up from the road, z ahead.
Colours are RGB until the photo is developed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from .colours import Colour
from .labels import Label
from .light import Light

NEAREST = 0.8  # metres; what is nearer is flattened onto this plane instead of turning inside out
SUBPIXEL_BITS = 4
CIRCLE = np.stack([np.cos(np.arange(14) * math.tau / 14), np.sin(np.arange(14) * math.tau / 14)], 1)


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from; lengths in the image are in image heights.

    Args:
        size: (H, W) in pixels.
        focal: Focal length.
        horizon: Row of the vanishing point.
        height: Metres above the road.
        yaw: Radians to the right.
        roll: Radians clockwise.
        bend: Metres the street drifts to the right per squared metre ahead.
    """

    size: tuple[int, int]
    focal: float
    horizon: float
    height: float
    yaw: float
    roll: float
    bend: float

    @classmethod
    def sample(cls, rng: Generator, size: tuple[int, int]) -> Camera:
        """A camera behind the windscreen of a car that is not quite level."""
        return cls(
            size=size,
            focal=rng.uniform(1.75, 2.35),
            horizon=float(np.clip(rng.normal(0.44, 0.035), 0.34, 0.54)),
            height=rng.uniform(1.2, 1.65),
            yaw=rng.normal(0.0, 0.045),
            roll=rng.normal(0.0, 0.012),
            bend=rng.normal(0.0, 0.0007),
        )

    def scale(self, depth: float) -> float:
        """Pixels per metre at this depth."""
        return self.focal * self.size[0] / max(depth, NEAREST)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres to (..., 2) pixels (column, row)."""
        rows, columns = self.size
        depth = np.maximum(points[..., 2], NEAREST)
        across = points[..., 0] / depth - self.yaw + self.bend * depth
        down = (self.height - points[..., 1]) / depth
        cosine, sine = math.cos(self.roll), math.sin(self.roll)
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = cosine * across - sine * down
        pixels[..., 1] = sine * across + cosine * down
        pixels *= self.focal * rows
        pixels += (columns / 2 - 0.5, rows * self.horizon - 0.5)
        return pixels

    def ground_depth(self) -> np.ndarray:
        """(H, W) depth of the road seen in each pixel; infinite above the horizon."""
        rows, columns = self.size
        row = np.arange(rows)[:, None] + 0.5 - rows * self.horizon
        column = np.arange(columns)[None, :] + 0.5 - columns / 2
        down = math.cos(self.roll) * row - math.sin(self.roll) * column
        with np.errstate(divide='ignore'):
            return np.where(down > 0, self.focal * rows * self.height / down, np.inf)


@dataclass(frozen=True)
class Place:
    """Where an object stands and where it heads; heading 0 is away from the camera."""

    x: float
    z: float
    heading: float = 0.0

    def world(self, local: Any) -> np.ndarray:
        """(..., 3) metres along, up and across the object to world coordinates."""
        local = np.asarray(local, dtype=np.float64)
        sine, cosine = math.sin(self.heading), math.cos(self.heading)
        points = np.empty_like(local)
        points[..., 0] = self.x + sine * local[..., 0] + cosine * local[..., 2]
        points[..., 1] = local[..., 1]
        points[..., 2] = self.z + cosine * local[..., 0] - sine * local[..., 2]
        return points


class Canvas:
    """Image and labels side by side: every stroke lands on both.

    A colour of None leaves the image alone (what is behind a fence shows through), a label of
    None the labels (a window is part of its wall). Haze is mixed in by depth as colours land.
    """

    def __init__(self, camera: Camera, light: Light) -> None:
        self.camera = camera
        self.light = light
        self.image = np.zeros((*camera.size, 3), np.uint8)
        self.labels = np.full(camera.size, Label.IGNORE, np.uint8)

    def tone(self, colour: Colour, depth: float) -> Colour:
        """The colour as it looks through the haze."""
        keep = math.exp(-self.light.haze_density * depth)
        red, green, blue = (
            min(255.0, max(0.0, keep * own + (1.0 - keep) * haze))
            for own, haze in zip(colour, self.light.haze, strict=True)
        )
        return red, green, blue

    def polygon(
        self, pixels: np.ndarray, colour: Colour | None, label: int | None, depth: float = 0.0
    ) -> None:
        """Fills one (K, 2) polygon, or (N, K, 2) polygons that do not overlap, in pixels."""
        # The bound keeps the fixed-point coordinates far away from overflow.
        points = np.rint(np.clip(pixels, -1e5, 1e5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        contours = [points] if points.ndim == 2 else list(points)
        if colour is not None:
            tone = self.tone(colour, depth)
            cv2.fillPoly(self.image, contours, tone, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.labels, contours, int(label), cv2.LINE_8, SUBPIXEL_BITS)

    def fill(self, points: Any, colour: Colour | None, label: int | None) -> None:
        """Fills (K, 3) or (N, K, 3) points in the world."""
        points = np.asarray(points, dtype=np.float64)
        self.polygon(self.camera.project(points), colour, label, float(points[..., 2].mean()))

    def hull(self, points: np.ndarray, colour: Colour | None, label: int | None) -> None:
        """Fills the outline of a solid with these (K, 3) corners."""
        pixels = self.camera.project(points).astype(np.float32)
        self.polygon(cv2.convexHull(pixels)[:, 0], colour, label, float(points[..., 2].mean()))

    def disc(self, centre: Any, radius: float, colour: Colour | None, label: int | None) -> None:
        """Fills a ball of this radius in metres."""
        centre = np.asarray(centre, dtype=np.float64)
        pixels = self.camera.project(centre) + CIRCLE * radius * self.camera.scale(centre[2])
        self.polygon(pixels, colour, label, centre[2])

    def limb(
        self, points: np.ndarray, width: float, colour: Colour | None, label: int | None
    ) -> None:
        """Draws a rod of this width in metres along (K, 3) points; never thinner than a pixel."""
        depth = float(points[..., 2].mean())
        pixels = np.rint(self.camera.project(points) * (1 << SUBPIXEL_BITS)).astype(np.int32)
        pixels = pixels.clip(-1_000_000, 1_000_000)
        thickness = max(1, round(width * self.camera.scale(depth)))
        if colour is not None:
            tone = self.tone(colour, depth)
            cv2.polylines(
                self.image, [pixels], False, tone, thickness, cv2.LINE_AA, SUBPIXEL_BITS
            )
        if label is not None:
            cv2.polylines(
                self.labels, [pixels], False, int(label), thickness, cv2.LINE_8, SUBPIXEL_BITS
            )


def subquad(
    quad: np.ndarray, left: float, low: float, right: float, high: float
) -> np.ndarray:
    """Part of a quad given as (lower left, lower right, upper right, upper left), in fractions."""
    across = np.array([left, right, right, left])[:, None]
    up = np.array([low, low, high, high])[:, None]
    lower = (1 - across) * quad[0] + across * quad[1]
    upper = (1 - across) * quad[3] + across * quad[2]
    return (1 - up) * lower + up * upper
