"""A pinhole camera over a street, and the image and label map it draws on.

World coordinates are metres: x to the right of the camera, y up from the road, z ahead.
Colours are RGB until the photo is developed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
    _plane: np.ndarray = field(init=False, repr=False, compare=False)
    _lift: np.ndarray = field(init=False, repr=False, compare=False)
    _drift: np.ndarray = field(init=False, repr=False, compare=False)
    _centre: np.ndarray = field(init=False, repr=False, compare=False)

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

    def __post_init__(self) -> None:
        # Thousands of small projections a scene: whatever is the same for all is done once.
        rows, columns = self.size
        focal = self.focal * rows
        right = focal * np.array([math.cos(self.roll), math.sin(self.roll)])
        down = focal * np.array([-math.sin(self.roll), math.cos(self.roll)])
        middle = np.array([columns / 2 - 0.5, rows * self.horizon - 0.5])
        object.__setattr__(self, '_plane', np.stack([right, -down]))
        object.__setattr__(self, '_lift', self.height * down)
        object.__setattr__(self, '_drift', self.bend * right)
        object.__setattr__(self, '_centre', middle - self.yaw * right)

    def scale(self, depth: float) -> float:
        """Pixels per metre at this depth."""
        return self.focal * self.size[0] / max(depth, NEAREST)

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres to (..., 2) pixels (column, row)."""
        depth = np.maximum(points[..., 2:], NEAREST)
        pixels = points[..., :2] @ self._plane
        pixels += self._lift
        pixels /= depth
        pixels += depth * self._drift
        pixels += self._centre
        return pixels

    def sees(self, x: float, z: float, radius: float) -> bool:
        """Whether a column of this radius in metres comes into the picture."""
        column = self.project(np.array([x, 0.0, z]))[0]
        margin = radius * self.scale(z - radius)
        return -margin < column < self.size[1] + margin

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
    _axes: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sine, cosine = math.sin(self.heading), math.cos(self.heading)
        axes = np.array([(sine, 0.0, cosine), (0.0, 1.0, 0.0), (cosine, 0.0, -sine)])
        object.__setattr__(self, '_axes', axes)

    def world(self, local: Any) -> np.ndarray:
        """(..., 3) metres along, up and across the object to world coordinates."""
        return np.asarray(local) @ self._axes + (self.x, 0.0, self.z)


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
        red, green, blue = self.light.haze
        return (
            keep * colour[0] + (1.0 - keep) * red,
            keep * colour[1] + (1.0 - keep) * green,
            keep * colour[2] + (1.0 - keep) * blue,
        )

    def polygon(
        self, pixels: np.ndarray, colour: Colour | None, label: int | None, depth: float = 0.0
    ) -> None:
        """Fills one (K, 2) polygon, or (N, K, 2) polygons that do not overlap, in pixels."""
        points = _fixed_point(pixels)
        contours = [points] if points.ndim == 2 else list(points)
        if colour is not None:
            tone = self.tone(colour, depth)
            cv2.fillPoly(self.image, contours, tone, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None:
            cv2.fillPoly(self.labels, contours, int(label), cv2.LINE_8, SUBPIXEL_BITS)

    def fill(self, points: Any, colour: Colour | None, label: int | None) -> None:
        """Fills (K, 3) or (N, K, 3) points in the world."""
        points = np.asarray(points, dtype=np.float64)
        self.polygon(self.camera.project(points), colour, label, _depth(points))

    def patches(self, pixels: np.ndarray, colours: list[Colour], label: int, depth: float) -> None:
        """Fills (N, K, 2) polygons that may overlap, one over the other, each in its colour."""
        for points, colour in zip(_fixed_point(pixels), colours, strict=True):
            tone = self.tone(colour, depth)
            cv2.fillPoly(self.image, [points], tone, cv2.LINE_AA, SUBPIXEL_BITS)
            cv2.fillPoly(self.labels, [points], int(label), cv2.LINE_8, SUBPIXEL_BITS)

    def hull(self, points: np.ndarray, colour: Colour | None, label: int | None) -> None:
        """Fills the outline of a solid with these (K, 3) corners."""
        pixels = self.camera.project(points).astype(np.float32)
        self.polygon(cv2.convexHull(pixels)[:, 0], colour, label, _depth(points))

    def disc(self, centre: Any, radius: float, colour: Colour | None, label: int | None) -> None:
        """Fills a ball of this radius in metres."""
        centre = np.asarray(centre, dtype=np.float64)
        pixels = self.camera.project(centre) + CIRCLE * radius * self.camera.scale(centre[2])
        self.polygon(pixels, colour, label, centre[2])

    def limb(
        self, points: np.ndarray, width: float, colour: Colour | None, label: int | None
    ) -> None:
        """Draws a rod of this width in metres along (K, 3) points; never thinner than a pixel."""
        depth = _depth(points)
        pixels = _fixed_point(self.camera.project(points))
        thickness = max(1, round(width * self.camera.scale(depth)))
        if colour is not None:
            tone = self.tone(colour, depth)
            cv2.polylines(self.image, [pixels], False, tone, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        if label is not None:
            cv2.polylines(
                self.labels, [pixels], False, int(label), thickness, cv2.LINE_8, SUBPIXEL_BITS
            )


def _fixed_point(pixels: np.ndarray) -> np.ndarray:
    return (pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def _depth(points: np.ndarray) -> float:
    """Halfway between two opposite corners; a mean over all takes longer than the fill."""
    flat = points.reshape(-1, 3)
    return float(flat[0, 2] + flat[len(flat) // 2, 2]) / 2


def subquad(quad: np.ndarray, left: float, low: float, right: float, high: float) -> np.ndarray:
    """Part of a quad given as (lower left, lower right, upper right, upper left), in fractions."""
    across = np.array([left, right, right, left])[:, None]
    up = np.array([low, low, high, high])[:, None]
    lower = (1 - across) * quad[0] + across * quad[1]
    upper = (1 - across) * quad[3] + across * quad[2]
    return (1 - up) * lower + up * upper
