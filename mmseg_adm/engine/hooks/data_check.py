"""Look at the labels before the first iteration."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.datasets.checks import (
    check_classes,
    check_images,
    check_labels,
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

    What looks like an image and is left out of the data set is said.

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
            ValueError: With the file and the value, or both class counts.
        """
        model = unwrapped(runner)
        loaders = [runner.train_dataloader]
        if runner.val_loop is not None:
            loaders.append(runner.val_dataloader)
        for loader in loaders:
            for dataset in plain_datasets(loader.dataset):
                check_classes(model, dataset)
                check_images(dataset, min(self.max_samples, IMAGES))
                check_labels(dataset, self.max_samples)
                if text := left_out(dataset):
                    runner.logger.warning(f'Images {text}')
