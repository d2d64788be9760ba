"""One picture of what the networks see, predict and agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# How labels that do not count are drawn: black, above the indices of all classes.
UNLABELED = 255
# From the preferred one on.
COLUMNS = (4, 5, 3)
TILE_WIDTH = 3.4  # inches
LEGEND_WIDTH = 1.4  # inches, of the name of a class
# Of the pixels of a channel that are no bytes: what is darker is black, what is brighter white.
PERCENTILES = (2, 98)


def draw_panel(
    image: np.ndarray,
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]] = (),
    title: str = '',
    ignore_index: int = 255,
    difference: bool = True,
) -> np.ndarray:
    """Draw a panel.

    Args:
        image: (H, W, 3), RGB, uint8; :func:`as_rgb` makes one of any image.
        labels: (H, W) class indices.
        predictions: (H, W) class indices by member.
        weights: (h, w) maps in [-1, 1] by name, drawn on one color scale from 0 to 1.
        classes: Names.
        palette: Their RGB colors; classes without one are given some.
        title: Above everything.
        ignore_index: The label that does not count; it is drawn black, here and in predictions.
        difference: Whether to show where several predictions are not the same.

    Returns:
        (height, width, 3), RGB, uint8.
    """
    colors = _colors(palette, len(classes))
    labeled = labels != ignore_index
    maps = {'labels': labels, **{f'{name} predicts': each for name, each in predictions.items()}}
    maps = {name: np.where(labeled, each, UNLABELED).astype(np.uint8)
            for name, each in maps.items()}  # fmt: skip
    difference = difference and len(predictions) > 1
    count = 1 + len(maps) + difference + len(weights)
    figure, axes = _grid(count, *labels.shape)
    free = iter(axes)
    height, width = labels.shape
    extent = (0, width, height, 0)
    for name, tile in {
        'image': image,
        **{name: colors[each] for name, each in maps.items()},
    }.items():
        axis = next(free)
        axis.imshow(tile, extent=extent)
        axis.set_title(name, fontsize='medium')
    if difference:
        _draw_difference(next(free), list(predictions.values()), labeled)
    last = None
    for name, weight in weights.items():
        axis = next(free)
        last = axis.imshow(
            weight, cmap='viridis', vmin=0, vmax=1, extent=extent, interpolation='nearest'
        )
        axis.set_title(f'{name} ({weight.mean():.2f} ± {weight.std():.2f})', fontsize='medium')
    if last is not None:
        figure.colorbar(last, ax=axes, shrink=0.8, pad=0.01, aspect=30)
    shown = np.unique(np.concatenate([each.ravel() for each in maps.values()]))
    names = dict(enumerate(classes)) | {UNLABELED: 'unlabeled'}
    figure.legend(
        handles=[Patch(color=colors[index] / 255, label=names[index])
                 for index in shown.tolist() if index in names],
        loc='outside lower center', ncols=int(figure.get_figwidth() / LEGEND_WIDTH),
        frameon=False, fontsize='small',
    )  # fmt: skip
    figure.suptitle(title)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]


def as_rgb(image: np.ndarray) -> np.ndarray:
    """What can be shown of an image of any number of channels and any type.

    Of several channels the first three, as blue, green and red: so OpenCV loads a photo, and so
    the bands of most satellites begin. Of one or two the first, in gray. Values that are no bytes
    are stretched, in each channel by itself, so that all but its darkest and brightest 2 % fill the
    range.

    Args:
        image: (H, W, channels), as a data set loads it.

    Returns:
        (H, W, 3), RGB, uint8.
    """
    channels = [2, 1, 0] if image.shape[-1] > 2 else [0, 0, 0]
    image = image[..., channels]
    if image.dtype == np.uint8:
        return image
    image = np.where(np.isfinite(image), image, 0).astype(np.float64)
    low, high = np.percentile(image, PERCENTILES, axis=(0, 1))
    stretched = (image - low) / np.where(high > low, high - low, 1)
    return np.round(255 * stretched.clip(0, 1)).astype(np.uint8)


def _colors(palette: Sequence[Sequence[int]], classes: int) -> np.ndarray:
    """(256, 3) RGB colors of the classes; all that is no class is black."""
    colors = np.zeros((256, 3), dtype=np.uint8)
    own = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)[:classes]
    spread = colormaps['turbo'](np.linspace(0.05, 0.95, classes))[:, :3]
    colors[:classes] = np.round(255 * spread)
    colors[: len(own)] = own
    return colors


def _grid(count: int, height: int, width: int) -> tuple[Figure, list]:
    """A figure with a tile for each of ``count`` maps, and as few empty ones as can be."""
    columns = min(COLUMNS, key=lambda columns: -count % columns)
    rows = -(-count // columns)
    tile_height = TILE_WIDTH * height / width
    figure = Figure(
        figsize=(columns * TILE_WIDTH + 0.8, rows * (tile_height + 0.35) + 1.0),
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def _draw_difference(axis, predictions: Sequence[np.ndarray], labeled: np.ndarray) -> None:
    """Where not all predictions are the same: white, in a frame that shows where the map ends."""
    first, *others = predictions
    differ = np.any([first != other for other in others], axis=0) & labeled
    share = 100 * differ.sum() / max(labeled.sum(), 1)
    axis.imshow(differ, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
    axis.set_title(f'predictions differ ({share:.0f} %)', fontsize='medium')
    axis.set_axis_on()
    axis.set(xticks=[], yticks=[])
