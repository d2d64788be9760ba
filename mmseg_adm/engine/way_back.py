"""What to do after a training has come upon something that is not finite."""

from __future__ import annotations

from mmengine.runner import Runner

from .checkpoints import newest_checkpoint


def way_back(runner: Runner) -> str:
    """From which checkpoint to go on, and how to look at every step from there."""
    last = newest_checkpoint(runner.cfg) if runner.cfg.get('work_dir') else None
    if last is not None:
        # Each was looked at before it was written.
        start = f'The last checkpoint, {last}, is whole and finite: go on from it with --resume'
    else:
        start = 'No checkpoint was saved before: start again'
    return (
        f'{start}. To look at all weights after every step: --cfg-options '
        'default_hooks.finite_weights.interval=1 default_hooks.logger.interval=1. Usual causes: '
        'a learning rate that is too high, images with NaN, float16 without loss scaling'
    )
