"""One scene: a plan, everything on it in depth order, and a photo of that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from .canvas import Camera, Canvas
from .colours import shade, vary
from .ground import cast_shadows, draw_ground, draw_sky, draw_skyline
from .labels import Label
from .light import Light, sample_light
from .photo import develop
from .props import Prop
from .roadside import line_side
from .street import Side, Street, sample_street
from .traffic import drive

# Scenes with consecutive seeds take turns, so that a small data set shows every class.
GUESTS = (
    Label.TRAIN,
    Label.BUS,
    Label.WALL,
    Label.TRUCK,
    Label.MOTORCYCLE,
    Label.FENCE,
    Label.RIDER,
    Label.TERRAIN,
)
LOTS = {Label.WALL: 'walled', Label.FENCE: 'fenced', Label.TERRAIN: 'park'}
SMALLEST, LARGEST = (32, 32), (1024, 2048)


def draw_scene(seed: int | Sequence[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws a street scene; the same seed and size give the same bytes.

    The last number of the seed also decides which rare class is invited, in turn.

    Args:
        seed: What ``numpy.random.default_rng`` takes: one number or several, not negative.
        size: (H, W) from 32x32 to 1024x2048; one seed shows the same street at any size.

    Returns:
        (H, W, 3) uint8 BGR image and (H, W) uint8 Cityscapes train ids, 255 ignored.

    Raises:
        ValueError: If the size is out of bounds or the seed negative.
    """
    numbers = [seed] if isinstance(seed, int | np.integer) else list(seed)
    check_size(size)
    if not numbers or min(numbers) < 0:
        raise ValueError(f'a seed is one or several numbers that are not negative, got {seed!r}')
    rng = np.random.default_rng(numbers)
    guest = GUESTS[int(numbers[-1]) % len(GUESTS)]
    camera, light = Camera.sample(rng, size), sample_light(rng)
    tram = guest == Label.TRAIN or rng.random() < 0.04
    street = sample_street(rng, tram, LOTS.get(guest))
    props = drive(rng, street, guest)
    for side in street.sides:
        props += line_side(rng, street, side)
    canvas = Canvas(camera, light)
    _compose(canvas, rng, street, props)
    _mask_camera(canvas, rng)
    return develop(rng, canvas.image, canvas.labels, light), canvas.labels


def check_size(size: tuple[int, int]) -> None:
    """Refuses sizes that the drawing was not made for."""
    for name, value, low, high in zip('HW', size, SMALLEST, LARGEST, strict=True):
        if not low <= value <= high:
            raise ValueError(f'size {name} must lie between {low} and {high}, got {value}')


def _compose(canvas: Canvas, rng: Generator, street: Street, props: list[Prop]) -> None:
    """Sky, ground, shadows, then props from far to near."""
    draw_sky(canvas, rng)
    draw_skyline(canvas, rng)
    draw_ground(canvas, rng, street)
    outlines = [prop.outline for prop in props if prop.outline is not None]
    for side in street.sides:
        outlines += _house_shadows(rng, side, canvas.light)
    cast_shadows(canvas, rng, outlines)
    for prop in sorted(props, key=lambda prop: -prop.order):
        if canvas.camera.sees(prop.x, prop.z, prop.radius):
            prop.draw(canvas, rng)


def _house_shadows(rng: Generator, side: Side, light: Light) -> list[np.ndarray]:
    """Where houses stand between the sun and the street."""
    right, up, ahead = light.sun
    if light.direct < 0.3 or right * side.sign <= 0.1:
        return []
    outlines = []
    for lot in side.lots:
        if lot.kind == 'building' and lot.far < 90.0:
            length = min(rng.uniform(7.0, 16.0) / up, 30.0)
            shift = np.array([-right * length, 0.0, -ahead * length])
            edge = np.array([(side.line, 0.0, max(lot.near, 1.0)), (side.line, 0.0, lot.far)])
            outlines.append(np.concatenate([edge, (edge + shift)[::-1]]))
    return outlines


def _mask_camera(canvas: Canvas, rng: Generator) -> None:
    """The camera car's own bonnet and the blank strip of rectified images do not count."""
    rows, columns = canvas.labels.shape
    if rng.random() < 0.5:
        height = rng.uniform(0.03, 0.1) * rows
        across = np.linspace(0.0, 1.0, 12)
        arch = rows - height * (1.0 - (2.0 * across - 1.0) ** 2) ** rng.uniform(0.2, 0.6)
        outline = np.stack([across * columns, arch], 1)
        bonnet = np.concatenate([outline, [(columns, rows), (0, rows)]])
        paint = shade(vary(rng, (60, 62, 66), 20.0), rng.uniform(0.6, 1.2))
        canvas.polygon(bonnet, paint, Label.IGNORE)
    if rng.random() < 0.4:
        wide = max(1, round(rng.uniform(0.004, 0.015) * columns))
        for edge in (canvas.labels[:, :wide], canvas.labels[:, -wide:], canvas.labels[-wide:]):
            edge[:] = Label.IGNORE
        if rng.random() < 0.5:
            canvas.image[canvas.labels == Label.IGNORE] //= 4
