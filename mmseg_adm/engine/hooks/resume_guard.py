"""What must not change between a run and the one that resumes it."""

from __future__ import annotations

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.registry import HOOKS

RECORD = 'mmseg_adm'


@HOOKS.register_module()
class ResumeGuardHook(Hook):
    """Records the frozen members and the batch in each checkpoint; compares when resuming."""

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Refuse checkpoints amid an accumulation.

        Raises:
            ValueError: If the interval of the checkpoints is no multiple of
                ``accumulative_counts``: the gradients gathered so far are not in them.
        """
        counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        for hook in runner.hooks:
            if not isinstance(hook, CheckpointHook) or hook.by_epoch or hook.interval <= 0:
                continue
            if hook.interval % counts:
                raise ValueError(
                    f'checkpoints every {hook.interval} iterations would be saved amid an '
                    f'accumulation over {counts}, and could not be resumed exactly: choose an '
                    f'interval that is a multiple of {counts}'
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
        if not runner._resume or earlier is None:
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
                '--cfg-options default_hooks.resume_guard=None'
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
            record[f'weights of {name} (sha256)'] = member.sha256
        if isinstance(runner.optim_wrapper, OptimWrapper):
            record['accumulative_counts'] = runner.optim_wrapper._accumulative_counts
        return record
