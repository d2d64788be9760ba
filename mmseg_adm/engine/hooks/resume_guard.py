"""What must not change between a run and the one that resumes it."""

from __future__ import annotations

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmseg_adm.checkpoint import RECORD, weights_record
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class ResumeGuardHook(Hook):
    """Records the frozen members and the batch in each checkpoint; compares when resuming.

    Args:
        strict: Refuse to resume a run with other settings.
    """

    priority = 'VERY_HIGH'

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict

    def before_train(self, runner: Runner) -> None:
        """Refuse checkpoints amid an accumulation.

        Raises:
            ValueError: If an interval at which checkpoints are saved is no multiple of
                ``accumulative_counts``: the gradients gathered so far are not in them.
        """
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        for hook in runner.hooks:
            if not isinstance(hook, CheckpointHook) or hook.by_epoch:
                continue
            intervals = [hook.interval]
            if hook.save_best:
                # A new best saves the last checkpoint again.
                intervals.append(getattr(runner.train_loop, 'val_interval', 0))
            for interval in intervals:
                if interval > 0 and interval % counts:
                    raise ValueError(
                        f'checkpoints every {interval} iterations would be saved amid an '
                        f'accumulation over {counts}, and could not be resumed exactly: choose '
                        f'intervals (also val_interval) that are a multiple of {counts}'
                    )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write down what the run depends on and the checkpoint does not hold."""
        checkpoint['meta'][RECORD] = self._record(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare with the run that is resumed.

        Raises:
            ValueError: If a frozen member, the batch or the number of processes is another.
        """
        earlier = checkpoint.get('meta', {}).get(RECORD)
        if not (self.strict and runner._resume and earlier is not None):
            return
        now = self._record(runner)
        changed = [
            f'  {key}: {earlier.get(key)!r} then, {now.get(key)!r} now'
            for key in sorted(earlier.keys() | now.keys())
            if earlier.get(key) != now.get(key)
        ]
        if changed:
            raise ValueError(
                'the checkpoint belongs to a run with other settings, so resuming it would not '
                'continue it:\n' + '\n'.join(changed) + '\nTo resume all the same: '
                '--cfg-options default_hooks.resume_guard.strict=False'
            )

    @staticmethod
    def _record(runner: Runner) -> dict:
        model = unwrapped(runner)
        record: dict = {'processes': get_world_size()}
        loader = runner.train_dataloader
        record['batch size'] = (
            loader['batch_size'] if isinstance(loader, dict) else loader.batch_size
        )
        for name, member in getattr(model, 'frozen', {}).items():
            record[weights_record(name)] = member.sha256
        if isinstance(runner.optim_wrapper, OptimWrapper):
            record['accumulative_counts'] = runner.optim_wrapper._accumulative_counts
        return record
