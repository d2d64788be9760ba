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

from mmseg_adm.engine.panel import draw_panel
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.models.step import DistillationStep
from mmseg_adm.registry import HOOKS
from mmseg_adm.writing import write_bytes


@HOOKS.register_module()
class ConsensusPictureHook(Hook):
    """After each validation draws a panel of a few validation images.

    Image, labels, every member's prediction, and for a method that chooses locations (ADM)
    its similarity, consensus weight and divergence weight. The panel goes to MMEngine's
    visualizer and as ``<out_dir>/consensus_<image>_iter_<n>.png``.

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
        """Draw the panels of this iteration."""
        model = unwrapped(runner)
        dataset = runner.val_dataloader.dataset
        out_dir = Path(runner.work_dir) / self.out_dir
        for index in self.indices:
            sample = dataset[index % len(dataset)]
            batch = pseudo_collate([sample])
            labels, predictions, weights = model.observe(batch, partial(read_maps, model))
            image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
            panel = draw_panel(
                image,
                labels,
                predictions,
                weights,
                classes=dataset.metainfo['classes'],
                palette=dataset.metainfo['palette'],
                title=f'iteration {runner.iter}',
            )
            path = out_dir / f'consensus_{index}_iter_{runner.iter}.png'
            write_bytes(path, cv2.imencode('.png', panel[..., ::-1])[1].tobytes())
            runner.visualizer.add_image(f'consensus_{index}', panel, step=runner.iter)


def read_maps(
    model: Any, step: DistillationStep
) -> tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Labels, predictions by member and weights by name, each (H, W), of a step's first image."""
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
    return labels.cpu().numpy(), predictions, weights
