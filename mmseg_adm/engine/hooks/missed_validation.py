"""The validation that a kill took."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from .checkpoint import VALIDATED


class MissedValidationHook(Hook):
    """Validates before a resumed run goes on, where the run before was killed amid a validation.

    The same best checkpoint is then kept as without the kill. :class:`TrainingRunner` adds it,
    behind all other hooks: they must be ready for a validation.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Validate if the checkpoint does not hold the outcome of a validation that is due."""
        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):
            done, end = loop.epoch, loop.max_epochs
        elif isinstance(loop, IterBasedTrainLoop):
            done, end = loop.iter, loop.max_iters
        else:  # nothing is known of when it validates
            return
        if runner.val_loop is None or done < max(loop.val_begin, 1):
            return
        loop._decide_current_val_interval()
        due = done % loop.val_interval == 0 or done == end
        if due and runner.message_hub.runtime_info.get(VALIDATED) != done:
            runner.logger.info(f'The validation after {done} had not ended: it is made up for')
            runner.val_loop.run()
