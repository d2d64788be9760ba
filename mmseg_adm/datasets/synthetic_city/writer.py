"""Writes scenes as a data set in the Cityscapes layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from .scene import check_size, draw_scene

MANIFEST = 'synthetic_city.json'
VERSION = 1  # of the drawing; raise it when the same seed draws something else
SPLITS = {'train': ('arvenholm', 'bellmarsh', 'corvale'), 'val': ('dunmere', 'estwick')}


def write_synthetic_city(
    root: str | os.PathLike[str],
    num_train: int = 240,
    num_val: int = 60,
    size: tuple[int, int] = (128, 256),
    seed: int = 0,
) -> Path:
    """Writes a data set that mmseg's ``CityscapesDataset`` reads, or finds it already there.

    Images go to ``leftImg8bit/{train,val}/<city>``, train ids to ``gtFine/{train,val}/<city>``.
    An interrupted call is taken up where it stopped; what is there is not drawn again. From 16
    images on, a split shows all 19 classes: the rare ones take turns.

    Args:
        root: Folder of the data set, made if need be.
        num_train: Number of training images.
        num_val: Number of validation images, of other cities and other seeds.
        size: (H, W) of all images, from 32x32 to 1024x2048.
        seed: Draws another data set.

    Returns:
        The root.

    Raises:
        ValueError: If an argument is out of bounds, or the root holds anything else.
    """
    root = Path(root)
    counts = {'train': num_train, 'val': num_val}
    for split, count in counts.items():
        if count < 1:
            raise ValueError(f'num_{split} must be at least 1, got {count}')
    if seed < 0:
        raise ValueError(f'seed must not be negative, got {seed}')
    check_size(size)
    _claim(root, {'version': VERSION, **counts, 'size': list(size), 'seed': seed})
    for number, (split, count) in enumerate(counts.items()):
        for index, (image_path, label_path) in enumerate(_paths(root, split, count)):
            if not (image_path.exists() and label_path.exists()):
                image, labels = draw_scene((seed, number, index), size)
                _write(image_path, image)
                _write(label_path, labels)
    return root


def _claim(root: Path, parameters: dict[str, object]) -> None:
    """Marks the folder as this data set's, unless it belongs to something else."""
    if root.exists() and not root.is_dir():
        raise ValueError(f'{root} is a file, not a folder for a data set')
    manifest = root / MANIFEST
    if manifest.exists():
        found = json.loads(manifest.read_text())
        if found != parameters:
            raise ValueError(
                f'{root} holds a synthetic city with {found}, asked for {parameters}: '
                'delete the folder or choose another'
            )
        return
    # Half-written files of another process that claims the same folder do not count.
    if root.exists() and any(not path.name.startswith('.') for path in root.iterdir()):
        raise ValueError(
            f'{root} holds something else than a synthetic city: choose another folder'
        )
    root.mkdir(parents=True, exist_ok=True)
    _replace(manifest, (json.dumps(parameters, indent=2) + '\n').encode())


def _paths(root: Path, split: str, count: int) -> Iterator[tuple[Path, Path]]:
    cities = SPLITS[split]
    for index in range(count):
        city = cities[index % len(cities)]
        stem = f'{split}/{city}/{city}_{index // len(cities):06d}_000019'
        yield (
            root / 'leftImg8bit' / f'{stem}_leftImg8bit.png',
            root / 'gtFine' / f'{stem}_gtFine_labelTrainIds.png',
        )


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, cv2.imencode('.png', pixels)[1].tobytes())


def _replace(path: Path, content: bytes) -> None:
    """Writes the file whole or not at all: several processes may be at the same folder."""
    temporary = path.with_name(f'.{path.name}.{os.getpid()}')
    temporary.write_bytes(content)
    temporary.replace(path)
