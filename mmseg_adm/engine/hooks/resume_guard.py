"""What must not change between a run and the one that resumes it."""

from __future__ import annotations

import json

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmseg_adm.checkpoint import RECORD, install_safe_loading, weights_record
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.registry import HOOKS

# Parts of the config whose settings are recorded, each by its path.
SETTINGS = ('model.methods', 'optim_wrapper', 'train_dataloader.batch_size')


@HOOKS.register_module()
class ResumeGuardHook(Hook):
    """Records what a run depends on in each checkpoint; compares when resuming.

    These are the frozen members' weights, the number of processes, and the settings of methods,
    optimizers and batch (:data:`SETTINGS`). Checkpoints are read weights-only.

    Args:
        strict: Refuse to resume a run with other settings, rather than warn.
    """

    priority = 'VERY_HIGH'

    def __init__(self, strict: bool = True) -> None:
        self.strict = strict

    def before_run(self, runner: Runner) -> None:
        """Make MMEngine read weights only: its loading comes next."""
        install_safe_loading()

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
            ValueError: If something recorded is another now; with all that is.
        """
        earlier = checkpoint.get('meta', {}).get(RECORD)
        if not runner._resume or earlier is None:
            return
        now = self._record(runner)
        changed = '\n'.join(
            f'  {key}: {earlier.get(key, "not set")} then, {now.get(key, "not set")} now'
            for key in sorted(earlier.keys() | now.keys())
            if earlier.get(key) != now.get(key)
        )
        if changed and self.strict:
            raise ValueError(
                'the checkpoint belongs to a run with other settings, so resuming it would not '
                f'continue it:\n{changed}\nTo resume all the same: '
                '--cfg-options default_hooks.resume_guard.strict=False'
            )
        if changed:
            runner.logger.warning(f'Resumed a run with other settings:\n{changed}')

    @staticmethod
    def _record(runner: Runner) -> dict:
        record: dict = {'processes': get_world_size()}
        for path in SETTINGS:
            record.update(_flat(path, _setting(runner.cfg, path)))
        for name, member in getattr(unwrapped(runner), 'frozen', {}).items():
            record[weights_record(name)] = member.sha256
        return record


def _setting(config: Config, path: str) -> object:
    """What a config has at ``path``, in the types that a checkpoint may hold."""
    value: object = config.to_dict()
    for key in path.split('.'):
        value = value.get(key) if isinstance(value, dict) else None
    return json.loads(json.dumps(value, default=str))


def _flat(path: str, value: object) -> dict:
    """Settings by path; what is ``None`` counts as not set."""
    if not isinstance(value, dict):
        return {} if value is None else {path: value}
    items: dict = {}
    for key, child in value.items():
        items |= _flat(f'{path}.{key}', child)
    return items
