"""Stop at the first loss that is not finite, and say which one it is."""

import math

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """MMEngine's ``CheckInvalidLossHook`` names the sum alone; this one names the terms.

    Args:
        interval: Iterations between two looks; each waits for the device.
    """

    # Before CheckpointHook: what is not finite must not become the last checkpoint.
    priority = 'LOW'

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at every logged value.

        Raises:
            ValueError: With the names of those that are NaN or infinite.
        """
        if not self.every_n_train_iters(runner, self.interval) or not outputs:
            return
        values = {name: value.item() for name, value in outputs.items()}
        wrong = {name: value for name, value in values.items() if not math.isfinite(value)}
        if wrong:
            listing = ', '.join(f'{name}={value}' for name, value in wrong.items())
            raise ValueError(
                f'not finite at iteration {runner.iter + 1}: {listing}. Usual causes: a learning '
                'rate that is too high, images with NaN, float16 without loss scaling'
            )
