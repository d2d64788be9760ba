"""Schedules of learning rates, and how one is brought to the length of another training."""

from __future__ import annotations

import copy

from mmengine.config import Config


def iterations_of(config: Config) -> int:
    """How long a config trains.

    Raises:
        ValueError: If it trains by epochs.
    """
    iterations = config.train_cfg.get('max_iters')
    if not iterations:
        raise ValueError(
            f'{config.filename} trains by epochs; schedules are compared and stretched in '
            'iterations: give train_cfg.max_iters'
        )
    return iterations


def schedule_of(config: Config) -> list:
    """A copy of a config's ``param_scheduler``, as a list."""
    schedule = copy.deepcopy(config.get('param_scheduler') or [])
    return schedule if isinstance(schedule, list) else [schedule]


def stretched(config: Config, target: int) -> list:
    """The schedule of a config, for a training of ``target`` iterations.

    What lasts to the end still does, milestones move in proportion, a warm-up keeps its length.

    Raises:
        ValueError: If it counts epochs, or steps that cannot be stretched.
    """
    iterations = iterations_of(config)
    schedule = [part for part in schedule_of(config) if part.get('begin', 0) < target]
    for part in schedule:
        if part.get('by_epoch', True):
            raise ValueError(
                f'{config.filename} schedules {part.type} by epochs: set by_epoch=False'
            )
        if 'total_steps' in part and target != iterations:
            raise ValueError(
                f'{config.filename} schedules {part.type} over total_steps={part.total_steps}, '
                f'which cannot be stretched from {iterations} to {target} iterations: give it '
                f'train_cfg.max_iters={target} and total_steps to match'
            )
        if part.get('end') is not None:
            part.end = target if part.end == iterations else min(part.end, target)
        # After a warm-up it is written either way.
        if part.get('T_max') in (iterations, iterations - part.get('begin', 0)):
            part.T_max += target - iterations
        if 'milestones' in part:
            part.milestones = [round(each * target / iterations) for each in part.milestones]
    return schedule
