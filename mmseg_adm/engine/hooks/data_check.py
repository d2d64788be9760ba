"""Look at the labels before the first iteration."""

from __future__ import annotations

import logging

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmseg_adm.datasets.checks import (
    check_classes,
    check_images,
    check_labels,
    check_variety,
    left_out,
    plain_datasets,
)
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.models.methods.base import whole
from mmseg_adm.registry import HOOKS

# That are decoded of each set: the files of all others are named when they are loaded.
IMAGES = 8


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Classes of data set and networks agree, label values are among them, and images decode.

    What looks like an image and is left out of the data set is said, and which classes occur in no
    label map that was read.

    Args:
        max_samples: Label maps that are read per data set, evenly spread, and of some
            of them the images; 0 reads none.
    """

    priority = 'VERY_HIGH'

    def __init__(self, max_samples: int = 100) -> None:
        self.max_samples = whole('max_samples', max_samples)

    def before_train(self, runner: Runner) -> None:
        """Check the training and the validation set.

        Raises:
            ValueError: With the file and the value, or both class counts; or if all labels that are
                trained on are of one class.
        """
        self._check(runner, runner.train_dataloader.dataset, trained=True)
        if runner.val_loop is not None:
            self._check(runner, runner.val_dataloader.dataset, trained=False)

    def _check(self, runner: Runner, whole_dataset: Dataset, trained: bool) -> None:
        model, found = unwrapped(runner), []
        for dataset in plain_datasets(whole_dataset):
            check_classes(model, dataset)
            check_images(dataset, min(self.max_samples, IMAGES))
            found.append(maps := check_labels(dataset, self.max_samples))
            if text := left_out(dataset):
                runner.logger.warning(f'Images {text}')
            if maps.absent:
                level = logging.WARNING if maps.only else logging.INFO
                split = 'training' if trained else 'validation'
                runner.logger.log(level, f'Labels of the {split} set: {maps}')
        if trained:
            check_variety(found)
