"""Street scenes drawn by chance, in the layout and with the train ids of Cityscapes.

A small data set for demonstrations and tests, hard enough that color alone does not give a
class away. Things (``KINDS``) stand in rows along a street (``ROWS``); all are flat shapes, seen
through a pinhole camera and drawn from far to near. World coordinates are meters: x to the
right of the camera, y up from the road, z ahead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmseg.datasets import CityscapesDataset

from mmseg_adm.writing import remove_leftovers, write_bytes

MANIFEST = 'synthetic_city.json'
VERSION = 2  # of the drawing; raise it when the same seed draws something else
CITIES = {'train': 'arvenholm', 'val': 'dunmere'}
TRAIN_IDS = {name: index for index, name in enumerate(CityscapesDataset.METAINFO['classes'])}
TRAIN_IDS['ignore'] = 255
AHEAD = NEAREST, FARTHEST = 0.9, 65.0  # meters; what is nearer is flattened onto that plane
SUBPIXEL_BITS = 4
# How much a surface differs from point to point; all others 0.03.
ROUGHNESS = {'vegetation': 0.25, 'terrain': 0.14, 'building': 0.05, 'wall': 0.07, 'fence': 0.08}
# RGB, varied by instance. Classes that are easily confused share a palette.
PALETTES = {
    'gray': [(86, 86, 90), (104, 101, 99), (122, 120, 118), (96, 90, 84), (134, 128, 122)],
    'green': [(70, 92, 52), (88, 106, 58), (56, 74, 50), (118, 108, 66), (104, 112, 70)],
    'stone': [(150, 138, 124), (122, 114, 106), (168, 156, 140), (196, 156, 132), (110, 110, 116)],
    'paint': [(40, 40, 44), (200, 200, 198), (150, 154, 158), (98, 102, 106), (138, 42, 40),
              (48, 68, 112), (174, 160, 130), (66, 84, 68), (196, 160, 60), (112, 132, 148)],
    'cloth': [(48, 52, 66), (124, 46, 44), (62, 62, 64), (150, 146, 140), (66, 86, 112)],
    'metal': [(110, 112, 114), (82, 84, 86), (138, 140, 140), (72, 86, 76)],
    'light': [(206, 204, 196), (228, 222, 204), (180, 44, 36), (232, 176, 66)],
    'dark': [(34, 34, 36), (46, 52, 60)],
}  # fmt: skip

_angles = np.arange(14) * (math.tau / 14)
_circle = np.stack([np.cos(_angles), np.sin(_angles)], 1)
SHAPES = {  # in the unit square
    'box': np.array([(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]),
    'cabin': np.array([(0.0, 0.0), (1.0, 0.0), (0.86, 1.0), (0.14, 1.0)]),
    'disk': 0.5 + 0.5 * _circle,
    'ring': 0.5 + 0.5 * np.concatenate([_circle, _circle[:1], 0.6 * _circle[::-1]]),
}
Array = np.ndarray | float
Pair = Sequence[float] | np.ndarray
# Shape; left, bottom, right, top in fractions of a face; palette or factor on the whole's color.
Part = tuple[str, float, float, float, float, str | float]
Thing = tuple['Kind', float, float]  # x of its middle, z of its near end


class Kind(NamedTuple):
    """A thing of one class: a face across the street and, for solids, a flank along it."""

    label: str
    palette: str
    size: tuple[float, float, float]  # width, height and length in meters
    front: tuple[Part, ...]
    side: tuple[Part, ...] = ()  # from the near end on


def _grid(columns: int, rows: int, bottom: float, top: float, paint: str | float) -> list[Part]:
    """Windows or slats between two heights."""
    rise = (top - bottom) / rows
    return [
        ('box', (i + 0.22) / columns, bottom + (j + 0.2) * rise,
         (i + 0.78) / columns, bottom + (j + 0.8) * rise, paint)
        for i in range(columns) for j in range(rows)
    ]  # fmt: skip


WHOLE: Part = ('box', 0, 0, 1, 1, 1)
BODY: Part = ('box', 0, 0.12, 1, 1, 1)
TIRES = (('box', 0.03, 0, 0.2, 0.25, 'dark'), ('box', 0.8, 0, 0.97, 0.25, 'dark'))
WHEELS = (('disk', 0.1, 0, 0.26, 0.4, 'dark'), ('disk', 0.7, 0, 0.86, 0.4, 'dark'))
LAMPS = (('box', 0.03, 0.36, 0.18, 0.48, 'light'), ('box', 0.82, 0.36, 0.97, 0.48, 'light'))
FIGURE = (('box', 0.3, 0, 0.7, 0.52, 'cloth'), ('cabin', 0.18, 0.45, 0.82, 0.87, 1),
          ('disk', 0.33, 0.83, 0.67, 1, 'stone'))  # fmt: skip
HOUSE = (WHOLE, *_grid(3, 3, 0, 1, 'dark'))
KINDS = {
    'car': Kind('car', 'paint', (1.8, 1.5, 4.3), (
        *TIRES, ('box', 0, .14, 1, .64, 1), ('cabin', .04, .6, .96, 1, 1.05),
        ('cabin', .1, .65, .9, .94, 'dark'), *LAMPS, ('box', .37, .26, .63, .38, 'light')), (
        ('box', 0, .16, 1, .64, .9), ('cabin', -.05, .6, .95, 1, 1),
        ('cabin', .08, .65, .82, .94, 'dark'), *WHEELS)),
    'van': Kind('car', 'paint', (1.95, 2.2, 5.0), (
        *TIRES, BODY, ('cabin', .1, .56, .9, .92, 'dark'), *LAMPS), (
        BODY, ('box', .04, .6, .24, .92, 'dark'), *WHEELS)),
    'truck': Kind('truck', 'paint', (2.4, 3.2, 8.0), (
        *TIRES, ('box', 0, .3, 1, 1, 'paint'), ('box', .03, .12, .97, .86, 1),
        ('box', .1, .5, .9, .78, 'dark'), *LAMPS), (
        ('box', 0, .12, .24, .86, 1), ('box', .28, .3, 1, 1, 'paint'), *WHEELS)),
    'bus': Kind('bus', 'paint', (2.5, 3.0, 11.0), (
        *TIRES, BODY, ('box', .06, .5, .94, .84, 'dark'), ('box', .2, .87, .8, .96, 'light'),
        *LAMPS), (BODY, *_grid(6, 1, .32, .95, 'dark'), *WHEELS)),
    'tram': Kind('train', 'paint', (2.5, 3.4, 24.0), (
        BODY, ('cabin', .1, .5, .9, .88, 'dark'), ('box', 0, .12, 1, .22, .6)), (
        BODY, *_grid(9, 1, .38, .95, 'dark'), ('box', 0, .12, 1, .22, .6))),
    'person': Kind('person', 'cloth', (.62, 1.72, 0), FIGURE),
    'rider': Kind('rider', 'cloth', (.62, 1.78, 0), FIGURE),
    'bicycle': Kind('bicycle', 'paint', (1.7, 1.0, 0), (
        ('ring', 0, 0, .42, .68, 'dark'), ('ring', .58, 0, 1, .68, 'dark'),
        ('cabin', .2, .34, .8, .85, 1), ('box', .7, .4, .78, 1, 'metal'))),
    'motorcycle': Kind('motorcycle', 'paint', (2.0, 1.1, 0), (
        ('disk', 0, 0, .34, .6, 'dark'), ('disk', .66, 0, 1, .6, 'dark'),
        ('box', .2, .26, .75, .6, 'metal'), ('cabin', .1, .5, .85, .82, 1))),
    'lantern': Kind('pole', 'metal', (1.9, 6.5, 0), (
        ('box', .46, 0, .54, 1, 1), ('box', .5, .97, 1, 1, 1))),
    'post': Kind('pole', 'metal', (.15, 2.9, 0), (WHOLE,)),
    'sign': Kind('traffic sign', 'paint', (.9, 2.8, 0), (
        ('disk', 0, .68, 1, 1, 1), ('box', .15, .8, .85, .88, 'light'))),
    'signal': Kind('traffic light', 'dark', (.5, 3.4, 0), (
        ('box', 0, .66, 1, 1, 1), ('disk', .25, .87, .75, .97, 'light'))),
    'tree': Kind('vegetation', 'green', (4.4, 6.8, 0), (
        ('box', .46, 0, .54, .5, 'dark'), ('disk', 0, .4, .55, .8, .8),
        ('disk', .45, .34, 1, .74, .9), ('disk', .18, .5, .84, 1, 1.1))),
    'bush': Kind('vegetation', 'green', (2.2, 1.3, 0), (('disk', 0, -.2, 1, 1, 1),)),
    'house': Kind('building', 'stone', (10, 10, 13), HOUSE, (WHOLE, *_grid(4, 3, 0, 1, 'dark'))),
    'tower': Kind('building', 'stone', (10, 17, 10), HOUSE, (WHOLE, *_grid(3, 5, 0, 1, 'dark'))),
    'shed': Kind('building', 'stone', (10, 5, 9), HOUSE, (WHOLE, *_grid(2, 1, 0, .7, .7))),
    'wall': Kind('wall', 'stone', (.4, 2.0, 14), (WHOLE,), (WHOLE, ('box', 0, .9, 1, 1, .8))),
    'fence': Kind('fence', 'stone', (.3, 1.5, 14), (WHOLE,), (WHOLE, *_grid(20, 1, 0, 1.2, .7))),
}  # fmt: skip


class Row(NamedTuple):
    """Things that follow each other along the street."""

    weights: dict[str, float]  # how often each comes; kinds at one place are joined by +
    reach: tuple[float, float] = (0.0, 0.0)  # meters from the curb; negative is on the road
    gap: tuple[float, float] = (0.0, 0.0)  # meters from one to the next
    chance: float = 1.0  # that a side of a street has it


LANE = Row({'car': 9, 'van': 2, 'truck': 1, 'bus': 1}, gap=(10, 40))
ROWS = (
    Row({'car': 8, 'van': 2}, (-2.1, -1.9), (1.5, 10), 0.5),
    Row({'rider+bicycle': 3, 'rider+motorcycle': 2}, (-3.0, -1.5), (8, 35), 0.6),
    Row({'person': 1}, (-4.0, -0.8), (10, 40), 0.4),
    Row({'lantern': 1}, (0.0, 0.3), (10, 25)),
    Row({'post+sign': 6, 'post+signal': 4, 'post': 1}, (0.3, 0.7), (6, 16)),
    Row({'tree': 3, 'bush': 1}, (0.2, 0.6), (5, 12), 0.5),
    Row({'person': 1}, (0.5, 4.0), (2, 12)),
    Row({'bicycle': 4, 'motorcycle': 2, 'bush': 1}, (0.5, 3.0), (4, 14), 0.8),
)
# From the line on where the sidewalk ends; they hide nothing of the rows above.
LOTS = Row({'house': 3, 'tower': 2, 'shed': 2, 'wall': 2, 'fence': 2.5}, gap=(0, 5))
BACKYARD = Row({'tree': 5, 'shed': 1, 'tower': 1}, (2, 9), (1, 10))
# Scenes with consecutive seeds take turns, so that a small data set shows every class.
GUESTS = ('tram', 'bus', 'wall', 'truck', 'rider+motorcycle', 'fence', 'rider+bicycle')


class Canvas:
    """Shapes drawn over each other by number; color, label and depth are looked up at the end."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator) -> None:
        self.size, self.rng = size, rng
        self.focal, self.horizon = rng.uniform((1.75, 0.37), (2.3, 0.5))  # in picture heights
        self.height, self.yaw = rng.uniform(1.2, 1.6), rng.normal(0.0, 0.04)  # meters, radians
        self.strokes = np.zeros(size, np.int32)
        self.colors, self.labels, self.depths = [np.zeros(3)], ['sky'], [np.inf]
        self.palettes = {}
        for name, colors in PALETTES.items():
            shades = rng.choice(colors, 64) * rng.uniform(0.8, 1.15, (64, 1))
            self.palettes[name] = shades + rng.normal(0.0, 7.0, (64, 3))

    def color(self, palette: str) -> np.ndarray:
        """An RGB color, varied by chance."""
        return self.palettes[palette][self.rng.integers(64)]

    def project(self, x: Array, y: Array, z: Array) -> np.ndarray:
        """World coordinates to (N, 2) pixels, column and row."""
        rows, columns = self.size
        depth, scale = np.maximum(z, NEAREST), self.focal * rows
        column = (x / depth - self.yaw) * scale + columns / 2
        row = (self.height - y) / depth * scale + self.horizon * rows
        return np.array([column, row]).T

    def add(self, pixels: np.ndarray, color: np.ndarray, label: str, depth: float) -> None:
        """Draws an outline of (N, 2) pixels; infinitely far is the ground."""
        fixed = ((pixels - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
        cv2.fillPoly(self.strokes, [fixed], len(self.labels), shift=SUBPIXEL_BITS)
        self.colors.append(color)
        self.labels.append(label)
        self.depths.append(depth)

    def strip(self, label: str, color: np.ndarray, x: Pair, z: Pair = AHEAD) -> None:
        """Draws a strip of the ground between two x and two z."""
        corners = self.project(np.take(x, (0, 1, 1, 0)), 0.0, np.take(z, (0, 0, 1, 1)))
        self.add(corners, color, label, np.inf)

    def face(
        self, kind: Kind, parts: tuple[Part, ...], color: np.ndarray, corner: Pair, along: Pair,
        height: float,
    ) -> None:  # fmt: skip
        """Draws an upright face from its lower corner (x, z) along its lower edge."""
        for shape, left, bottom, right, top, paint in parts:
            u, v = (SHAPES[shape] * (right - left, top - bottom) + (left, bottom)).T
            pixels = self.project(corner[0] + u * along[0], v * height, corner[1] + u * along[1])
            tone = self.color(paint) if isinstance(paint, str) else color * paint
            self.add(pixels, tone, kind.label, corner[1] + along[1] / 2)


def _place(rng: np.random.Generator, row: Row, x: Pair, z: float, guest: str = '') -> list[Thing]:
    """A row from z on, beside the first x and not much beyond the second; a guest goes first."""
    names, weights = list(row.weights), np.array(list(row.weights.values()))
    things: list[Thing] = []
    z += rng.uniform(0.0, row.gap[1] / 2)
    while z < FARTHEST:
        name = rng.choice(names, p=weights / weights.sum()) if things or not guest else guest
        kinds = [KINDS[each] for each in name.split('+')]
        width, _, length = kinds[-1].size
        beside = min(rng.uniform(*row.reach), abs(x[1] - x[0])) + width / 2
        things += [(kind, x[0] + np.sign(x[1] - x[0]) * beside, z) for kind in kinds]
        z += length + rng.uniform(*row.gap)
    return sorted(things, key=lambda thing: -thing[2])


def _draw_street(canvas: Canvas, guest: str) -> list[Thing]:
    """Draws the ground; returns what stands on it, in the order of drawing."""
    rng = canvas.rng
    lanes = np.arange(-rng.integers(3), 1 + rng.integers(2)) * 3.2 + rng.normal(0.0, 0.25)
    curbs = lanes[[0, -1]] + (-1, 1) * rng.uniform(1.6, 4.2, 2)
    lots, things = list[Thing](), list[Thing]()
    canvas.strip('terrain', canvas.color('green'), (-150.0, 150.0))
    canvas.strip('road', canvas.color('gray'), curbs)
    for middle in (lanes[1:] + lanes[:-1]) / 2:
        for z in np.arange(rng.uniform(1.0, 8.0), FARTHEST, 8.0):
            x = middle - 0.07, middle + 0.07
            canvas.strip('road', canvas.palettes['light'][0], x, (z, z + 4.0))
    in_lane, in_lots = ('', guest) if guest in LOTS.weights else (guest, '')
    for lane in lanes:
        start = 7.0 if abs(lane) < 1.5 else 2.0  # not on the camera
        things += _place(rng, LANE, (lane - 1.1, lane + 1.1), start, in_lane)
        in_lane = ''
    for sign, curb in zip((-1, 1), curbs, strict=True):
        line = curb + sign * rng.uniform(2.5, 6.5)
        canvas.strip('sidewalk', canvas.color('gray'), (curb, line))
        canvas.strip('sidewalk', canvas.color('stone'), (curb, curb + sign * 0.15))
        verge = rng.uniform(0.8, 2.2) if rng.random() < 0.4 else 0.0
        canvas.strip('terrain', canvas.color('green'), (line, line - sign * verge))
        lots += _place(rng, BACKYARD, (line, line + sign * 99.0), 3.0)
        lots += _place(rng, LOTS, (line, line + sign * 99.0), 2.0, in_lots if sign > 0 else '')
        for row in ROWS:
            if rng.random() < row.chance:
                things += _place(rng, row, (curb, line - sign * 0.6), 4.0)
    return lots + sorted(things, key=lambda thing: -thing[2])


def _draw_thing(canvas: Canvas, thing: Thing, sun: int) -> None:
    kind, x, z = thing
    width, height, length = kind.size * canvas.rng.uniform(0.88, 1.12, 3)
    away = np.sign(x)
    flank = away * max(abs(x) - width / 2, 0.0)  # 0 where the camera is in front of it
    if not 0 <= canvas.project(flank, 0.0, z + length)[0] <= canvas.size[1]:
        return
    color = canvas.color(kind.palette)
    if kind.label in ('car', 'truck', 'bus', 'train'):
        below = x - width / 2 - 0.3, x + width / 2 + 0.3
        canvas.strip('road', 0.4 * canvas.color('gray'), below, (z - 0.2, z + length))
    if kind.side and flank:
        lit = color * (0.72 if sun == away else 1.08)
        canvas.face(kind, kind.side, lit, (flank, z), (0, length), height)
    mirror = canvas.rng.choice([-1, 1])
    corner = x - mirror * width / 2, z
    canvas.face(kind, kind.front, color, corner, (mirror * width, 0), height)


def _develop(canvas: Canvas, sun: int) -> tuple[np.ndarray, np.ndarray]:
    """The photo of a canvas: texture, shadow, haze, the color of the light, blur and noise."""
    rng, (rows, columns) = canvas.rng, canvas.size
    air = rng.uniform(150.0, 225.0) * rng.uniform(0.92, 1.08, 3)
    zenith = air * rng.uniform((0.45, 0.6, 0.85), (1.0, 1.0, 1.1))
    light = rng.uniform(0.6, 1.15) * rng.uniform(0.9, 1.1, 3)
    visibility, noise, blur = rng.uniform((45.0, 4.0, 0.4), (220.0, 11.0, 0.9))
    labels = np.array([TRAIN_IDS[label] for label in canvas.labels], np.uint8)[canvas.strokes]
    depth = np.array(canvas.depths)[canvas.strokes]
    image = np.array([zenith, *canvas.colors[1:]])[canvas.strokes]
    roughness = np.array([ROUGHNESS.get(label, 0.03) for label in canvas.labels])[canvas.strokes]
    image *= 1 + (roughness * rng.standard_normal(canvas.size))[..., None]
    down = np.arange(0.5, rows)[:, None] / rows - canvas.horizon
    ground = canvas.focal * canvas.height / np.where(down > 0, down, 1e-9)
    across = (np.arange(columns) - columns / 2) / (canvas.focal * rows) * ground
    shaded = np.isinf(depth) & (sun * across > rng.uniform(-3.0, 6.0)) & (down > 0)
    image[shaded] *= rng.uniform(0.5, 0.8)  # by the houses before the sun
    haze = np.where(labels == TRAIN_IDS['sky'], 1 + down / canvas.horizon,
                    1 - np.exp(-np.minimum(depth, ground) / visibility))  # fmt: skip
    image += haze.clip(0, 1)[..., None] * (air - image)
    image = cv2.GaussianBlur(image, (0, 0), blur * rows / 128) * light
    image += noise * rng.standard_normal(image.shape)
    return image.clip(0, 255).astype(np.uint8)[..., ::-1], labels


def draw_scene(seed: Sequence[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws (H, W, 3) uint8 BGR and (H, W) uint8 train ids; the same for the same seed and size.

    The last number of the seed says which rare class is invited. Any size shows the same street.
    """
    rng = np.random.default_rng(seed)
    canvas, sun = Canvas(size, rng), rng.choice([-1, 1])
    for thing in _draw_street(canvas, GUESTS[seed[-1] % len(GUESTS)]):
        _draw_thing(canvas, thing, sun)
    # The camera car's own hood and the blank edge of a rectified picture do not count.
    height, width = rng.uniform(-0.04, (0.1, 0.015)).clip(0) * size
    hood, edge = SHAPES['cabin'] * (size[1], -height), SHAPES['box'] * (width, -size[0])
    for outline in (hood, edge):
        canvas.add(np.add(outline, (0, size[0])), canvas.color('dark'), 'ignore', 0.0)
    return _develop(canvas, sun)


def write_synthetic_city(
    root: str | os.PathLike[str],
    num_train: int = 240,
    num_val: int = 48,
    size: Sequence[int] = (128, 256),
    seed: int = 0,
) -> Path:
    """Writes a data set that mmseg's ``CityscapesDataset`` reads, or finds it already there.

    Images go to ``leftImg8bit/{train,val}/<city>``, train ids to ``gtFine/{train,val}/<city>``.
    An interrupted call is taken up where it stopped; what is there is not drawn again. From 16
    images on, a split shows all 19 classes: the rare ones take turns.

    Args:
        root: Folder of the data set, made if need be; also what is returned.
        num_train: Number of training images.
        num_val: Number of validation images, of another city and other seeds.
        size: (H, W) of all images, at least 32x32.
        seed: Draws another data set.

    Raises:
        ValueError: If an argument is out of bounds, or the root holds anything else.
    """
    root, (height, width) = Path(root), size
    least = {'num_train': 1, 'num_val': 1, 'height': 32, 'width': 32, 'seed': 0}
    for name, value in zip(least, (num_train, num_val, height, width, seed), strict=True):
        if value < least[name]:
            raise ValueError(f'{name} must be at least {least[name]}, got {value}')
    counts = {'train': num_train, 'val': num_val}
    _claim(root, {'version': VERSION, **counts, 'size': [height, width], 'seed': seed})
    remove_leftovers(root, '**/*')
    for number, (split, count) in enumerate(counts.items()):
        for index in range(count):
            stem = f'{split}/{CITIES[split]}/{CITIES[split]}_{index:06d}_000019'
            image = root / 'leftImg8bit' / f'{stem}_leftImg8bit.png'
            labels = root / 'gtFine' / f'{stem}_gtFine_labelTrainIds.png'
            if not (image.exists() and labels.exists()):
                scene = draw_scene((seed, number, index), (height, width))
                for path, pixels in zip((image, labels), scene, strict=True):
                    write_bytes(path, cv2.imencode('.png', pixels)[1].tobytes())
    return root


def _claim(root: Path, settings: dict[str, object]) -> None:
    """Marks the folder as this data set's, unless it belongs to something else."""
    manifest = root / MANIFEST
    if manifest.exists():
        found = json.loads(manifest.read_text())
        if found != settings:
            raise ValueError(
                f'{root} was drawn with {found}, not {settings}: choose another folder'
            )
    # What another process, which claims the same folder, has begun to write does not count.
    elif root.is_file() or any(path.suffix != '.partial' for path in root.glob('[!.]*')):
        raise ValueError(f'{root} is not a folder of a synthetic city: choose another')
    else:
        write_bytes(manifest, json.dumps(settings, indent=2).encode())


def main() -> None:
    """Reads the command line, writes the data set and prints its root."""
    parser = argparse.ArgumentParser(description='Draws street scenes in the Cityscapes layout.')
    parser.add_argument('root', type=Path, help='folder of the data set')
    parser.add_argument('--num-train', type=int, default=240)
    parser.add_argument('--num-val', type=int, default=48)
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), default=(128, 256))
    parser.add_argument('--seed', type=int, default=0)
    try:
        print(write_synthetic_city(**vars(parser.parse_args())))
    except ValueError as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
