"""What must not change between a run and the one that resumes it."""

from __future__ import annotations

from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmseg_adm.checkpoint import RECORD, install_safe_loading, weights_record
from mmseg_adm.engine.settings import RESTORED, Change, differences, settings_of, spans
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.models.methods.base import flag
from mmseg_adm.registry import HOOKS

PROCESSES = 'processes'
SETTINGS = 'settings'
# How many differences a message lists.
LISTED = 20


@HOOKS.register_module()
class ResumeGuardHook(Hook):
    """Records what a run depends on in each checkpoint; compares when resuming.

    These are the settings of networks, methods, data, optimizers and schedules
    (``mmseg_adm.engine.settings.settings_of``), and the frozen members' weights. A training of
    another length, data elsewhere and other numbers of workers or processes are no difference.
    Checkpoints are read weights-only.

    Args:
        allow_changes: Resume a run with other settings all the same, where they take effect.

    Raises:
        ValueError: If ``allow_changes`` is no boolean.
    """

    priority = 'VERY_HIGH'

    def __init__(self, allow_changes: bool = False) -> None:
        self.allow_changes = flag('allow_changes', allow_changes)

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
        loop: Any = runner.train_loop
        epoch = len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None
        for hook in runner.hooks:
            if not isinstance(hook, CheckpointHook):
                continue
            # A training by iterations has no epoch after which it would save.
            unit = (epoch or 0) if hook.by_epoch else 1
            intervals = [hook.interval * unit, hook.save_begin * unit]
            if hook.save_best:
                # A new best saves the last checkpoint again.
                later = getattr(loop, 'dynamic_intervals', None) or [
                    getattr(loop, 'val_interval', 0)
                ]
                intervals += [each * (epoch or 1) for each in later]
            for interval in intervals:
                if interval > 0 and interval % counts:
                    raise ValueError(
                        f'checkpoints every {interval} iterations would be saved amid an '
                        f'accumulation over {counts}, and could not be resumed exactly: choose '
                        f'intervals (also val_interval) that are a multiple of {counts}'
                    )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Write down what the run depends on and the checkpoint does not hold."""
        checkpoint['meta'][RECORD] = _record(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare with the run that is resumed.

        Raises:
            ValueError: If something recorded is another now; with all that is.
        """
        then = checkpoint.get('meta', {}).get(RECORD)
        if not runner._resume or then is None:
            return
        now = _record(runner)
        changed = [
            Change(key, then.get(key), now.get(key))
            for key in sorted((then.keys() | now.keys()) - {PROCESSES, SETTINGS})
            if then.get(key) != now.get(key)
        ]
        changed += differences(then.get(SETTINGS, {}), now[SETTINGS])
        restored = [each for each in changed if RESTORED.fullmatch(each.path)]
        if changed and not self.allow_changes:
            raise ValueError(_refusal(changed, restored))
        if restored:
            raise ValueError(_ineffective(restored))
        if changed:
            runner.logger.warning(f'Resumed a run with other settings:{_listing(changed)}')
        _say_what_differs(runner, then, now)


def _record(runner: Runner) -> dict:
    frozen = getattr(unwrapped(runner), 'frozen', {})
    return {
        PROCESSES: get_world_size(),
        SETTINGS: settings_of(runner.cfg),
        **{weights_record(name): member.sha256 for name, member in frozen.items()},
    }


def _refusal(changed: list[Change], restored: list[Change]) -> str:
    text = (
        'the checkpoint belongs to a run with other settings, so resuming it would not continue '
        f'it:{_listing(changed)}\n'
    )
    if restored:
        return text + _ineffective(restored)
    return (
        f'{text}To resume all the same: --allow-changes (in Python allow_changes=True), or '
        '--cfg-options default_hooks.resume_guard.allow_changes=True'
    )


def _ineffective(restored: list[Change]) -> str:
    """Optimizers and schedules go on as they were: to say yes to these would be to ignore them."""
    return (
        f'No resumed run can change these, which come with its checkpoint:{_listing(restored)}\n'
        'Set them as they were, or start another run from the weights: without --resume, with '
        'load_from=CHECKPOINT and a work dir of its own'
    )


def _listing(changed: list[Change]) -> str:
    lines = [f'\n  {each}' for each in changed[:LISTED]]
    if len(changed) > LISTED:
        lines.append(f'\n  and {len(changed) - LISTED} more')
    return ''.join(lines)


def _say_what_differs(runner: Runner, then: dict, now: dict) -> None:
    """What is no other training, and yet not the same."""
    if then.get(PROCESSES) != now[PROCESSES]:
        runner.logger.warning(
            f'Resumed with {now[PROCESSES]} processes in place of {then.get(PROCESSES)}: a step '
            'takes in as many batches'
        )
    if lasting := spans(then.get(SETTINGS, {}), now[SETTINGS]):
        runner.logger.warning(
            f'Schedules are the ones of the checkpoint, and end where they did:{_listing(lasting)}'
        )
