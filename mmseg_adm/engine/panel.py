"""One picture of what the networks see, predict and agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

IGNORED = 255
COLUMNS = 4
TILE_WIDTH = 3.4  # inches


def draw_panel(
    image: np.ndarray,
    labels: np.ndarray,
    predictions: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    title: str = '',
) -> np.ndarray:
    """Draw a panel.

    Args:
        image: (H, W, 3), RGB, uint8.
        labels: (H, W) class indices; 255 is drawn black.
        predictions: (H, W) class indices by member.
        weights: (h, w) maps in [-1, 1] by name, drawn on one color scale from 0 to 1.
        classes: Names.
        palette: Their RGB colors.
        title: Above everything.

    Returns:
        (height, width, 3), RGB, uint8.
    """
    colors = np.zeros((256, 3), dtype=np.uint8)
    colors[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    tiles: dict[str, np.ndarray] = {'image': image, 'labels': colors[labels.astype(np.uint8)]}
    for name, prediction in predictions.items():
        shown = np.where(labels == IGNORED, IGNORED, prediction).astype(np.uint8)
        tiles[f'{name} predicts'] = colors[shown]

    count = len(tiles) + len(weights) + (len(predictions) > 1)
    rows = -(-count // COLUMNS)
    height, width = labels.shape
    tile_height = TILE_WIDTH * height / width
    figure = Figure(
        figsize=(COLUMNS * TILE_WIDTH + 0.8, rows * (tile_height + 0.35) + 1.0),
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes:
        axis.set_axis_off()
    free = iter(axes)
    for name, tile in tiles.items():
        axis = next(free)
        axis.imshow(tile, extent=(0, width, height, 0))
        axis.set_title(name, fontsize='medium')
    if len(predictions) > 1:
        first, *others = predictions.values()
        differ = np.any([first != other for other in others], axis=0) & (labels != IGNORED)
        share = 100 * differ.sum() / max((labels != IGNORED).sum(), 1)
        axis = next(free)
        axis.imshow(differ, cmap='gray', vmin=0, vmax=1, interpolation='nearest')
        axis.set_title(f'predictions differ ({share:.0f} %)', fontsize='medium')
    last = None
    for name, weight in weights.items():
        axis = next(free)
        last = axis.imshow(
            weight, cmap='viridis', vmin=0, vmax=1, extent=(0, width, height, 0),
            interpolation='nearest',
        )  # fmt: skip
        axis.set_title(f'{name} ({weight.mean():.2f} ± {weight.std():.2f})', fontsize='medium')
    if last is not None:
        figure.colorbar(last, ax=axes, shrink=0.8, pad=0.01, aspect=30)
    present = np.unique(
        np.concatenate([labels.ravel(), *(p.ravel() for p in predictions.values())])
    )
    figure.legend(
        handles=[Patch(color=colors[index] / 255, label=classes[index])
                 for index in present if index < len(classes)],
        loc='outside lower center', ncols=10, frameon=False, fontsize='small',
    )  # fmt: skip
    figure.suptitle(title)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()  # type: ignore[attr-defined]
