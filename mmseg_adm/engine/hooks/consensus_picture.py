"""Where the networks agree, as pictures over training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.engine.panel import as_rgb, draw_panel
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.mistakes import described
from mmseg_adm.models.step import DistillationStep
from mmseg_adm.registry import HOOKS
from mmseg_adm.writing import write_bytes


@HOOKS.register_module()
class ConsensusPictureHook(Hook):
    """After each validation draws a panel of a few validation images.

    Image, labels, every member's prediction, and for a method that chooses locations (ADM)
    its similarity, consensus weight and divergence weight. The panel goes to MMEngine's
    visualizer and as ``<out_dir>/consensus_<image>_iter_<n>.png``. An image may have any number of
    channels of any type; where none can be drawn, the log says why.

    Args:
        indices: Which images of the validation set.
        out_dir: Relative to the work dir unless absolute.

    Raises:
        ValueError: If ``indices`` are none.
    """

    # Before EMAHook puts the raw weights back.
    priority = 'ABOVE_NORMAL'

    def __init__(self, indices: Sequence[int] = (0,), out_dir: str = 'pictures') -> None:
        if not isinstance(indices, (list, tuple)) or not all(type(each) is int for each in indices):
            raise ValueError(f'indices must be a list of image numbers, got {indices!r}')
        self.indices = tuple(indices)
        self.out_dir = out_dir

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Draw the panels of this iteration; one that cannot be drawn is no reason to stop."""
        dataset = runner.val_dataloader.dataset
        out_dir = Path(runner.work_dir) / self.out_dir
        for index in self.indices:
            try:
                panel = draw_sample(unwrapped(runner), dataset, index, f'iteration {runner.iter}')
            except Exception as error:  # data sets and networks are anyone's
                runner.logger.warning(f'No picture of image {index}: {described(error)}')
                continue
            path = out_dir / f'consensus_{index}_iter_{runner.iter}.png'
            write_bytes(path, cv2.imencode('.png', panel[..., ::-1])[1].tobytes())
            runner.visualizer.add_image(f'consensus_{index}', panel, step=runner.iter)

    def rehearse(self, model: Any, dataset: Any) -> None:
        """Draw one panel for nobody: preflight says why none could be drawn.

        Args:
            model: A distiller; it is left as it was.
            dataset: The validation set.
        """
        for index in self.indices[:1]:
            draw_sample(model, dataset, index)


def draw_sample(model: Any, dataset: Any, index: int, title: str = '') -> np.ndarray:
    """The panel of one image of a data set, counted on from its beginning past its end.

    Args:
        model: A distiller.
        dataset: Whose samples hold an image ``inputs``, (channels, H, W), and its labels.
        index: Of the image.
        title: Above the panel.

    Returns:
        (height, width, 3), RGB, uint8.
    """
    sample = dataset[index % len(dataset)]
    labels, predictions, weights, ignore_index = model.observe(
        pseudo_collate([sample]), partial(read_maps, model)
    )
    return draw_panel(
        as_rgb(sample['inputs'].permute(1, 2, 0).numpy()),
        labels,
        predictions,
        weights,
        classes=dataset.metainfo['classes'],
        palette=dataset.metainfo.get('palette') or (),
        title=title,
        ignore_index=ignore_index,
    )


def read_maps(
    model: Any, step: DistillationStep
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """What a panel shows of a step's first image.

    Returns:
        Labels, predictions by member and weights by name, each (H, W), and the label that does not
        count.
    """
    labels = step.labels[0]
    predictions = {}
    for name in model.member_names:
        logits = F.interpolate(step.read(name, 'logits')[:1], labels.shape, mode='bilinear')
        predictions[name] = logits.argmax(dim=1)[0].cpu().numpy()
    weights: dict[str, np.ndarray] = {}
    for method in model.methods.values():
        if hasattr(method, 'maps'):
            weights.update({name: value[0].float().cpu().numpy()
                            for name, value in method.maps(step).items()})  # fmt: skip
    return labels.cpu().numpy(), predictions, weights, step.ignore_index
