"""What a real camera adds: grain of the surfaces, exposure, lens, sensor and compression."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.random import Generator

from .labels import Label
from .light import Light

# Relative contrast of each surface's own grain. Foliage and grass are rough, paint is smooth.
ROUGHNESS = {
    Label.ROAD: 0.06,
    Label.SIDEWALK: 0.07,
    Label.BUILDING: 0.06,
    Label.WALL: 0.08,
    Label.FENCE: 0.07,
    Label.VEGETATION: 0.22,
    Label.TERRAIN: 0.15,
    Label.SKY: 0.008,
}
SMOOTH = 0.035


def develop(rng: Generator, image: np.ndarray, labels: np.ndarray, light: Light) -> np.ndarray:
    """(H, W, 3) drawn RGB to the (H, W, 3) BGR photo; the labels only say what is rough."""
    rows = image.shape[0]
    table = np.full(256, SMOOTH, np.float32)
    for label, roughness in ROUGHNESS.items():
        table[label] = roughness
    # Haze lies before the surfaces and hides their grain.
    contrast = rng.uniform(0.5, 1.5) * np.exp(-25.0 * light.haze_density)
    grain = 1.0 + np.float32(contrast) * table[labels] * _grain(rng, labels.shape)
    tint = np.asarray(light.cast) * light.gain
    photo = image.astype(np.float32) * grain[..., None]
    photo *= tint.astype(np.float32) * _vignette(rng, labels.shape)[..., None]
    photo = _tone_curve(rng, photo)
    sigma = max(0.05, rng.normal(0.45, 0.2)) * max(1.0, rows / 256)
    photo = cv2.GaussianBlur(photo, (0, 0), sigma)
    # Half the noise is shared by the channels: a sensor's is not purely chromatic.
    noise = np.float32(rng.uniform(1.0, 5.0))
    photo += noise * rng.standard_normal(photo.shape, dtype=np.float32)
    photo += noise * rng.standard_normal((*labels.shape, 1), dtype=np.float32)
    quality = int(rng.integers(55, 96))
    bgr = np.ascontiguousarray(np.clip(photo, 0, 255).astype(np.uint8)[..., ::-1])
    encoded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))


def _grain(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of about unit variance at three scales, the finest a pixel."""
    rows, columns = shape
    grain = 0.6 * rng.standard_normal(shape, dtype=np.float32)
    for cells, weight in ((40, 0.6), (9, 0.7)):
        coarse = rng.standard_normal((cells, 2 * cells), dtype=np.float32)
        grain += weight * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return grain


def _vignette(rng: Generator, shape: tuple[int, ...]) -> np.ndarray:
    row = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, None]
    column = np.linspace(-1, 1, shape[1], dtype=np.float32)[None, :]
    return 1.0 - np.float32(rng.uniform(0.0, 0.16)) * (row**2 + column**2)


def _tone_curve(rng: Generator, photo: np.ndarray) -> np.ndarray:
    """A contrast and a gamma of the camera's own, by table: powers of a photo are slow."""
    levels = np.arange(256) / 255.0
    curve = (levels ** rng.uniform(0.85, 1.2) - 0.45) * rng.uniform(0.8, 1.1) + 0.45
    curve = np.clip(curve * 255.0, 0, 255).astype(np.float32)
    return curve[np.clip(photo, 0, 255).astype(np.uint8)]
