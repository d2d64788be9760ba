"""Schedules of learning rates, and how one is brought to the length of another training."""

from __future__ import annotations

import copy

from mmengine.config import Config, ConfigDict

from .structure import schedules_of

# Evaluations that a curve needs at least.
POINTS = 8


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
    parts = [part for part in schedule_of(config) if part.get('begin', 0) < target]
    return [_stretched(part, iterations, target, config.filename) for part in parts]


def options_for_length(config: Config, target: int) -> dict[str, object]:
    """Overrides, by dotted key, with which a config trains for ``target`` iterations.

    Learning rates as in :func:`stretched`, when methods start and stop in proportion;
    evaluations and checkpoints too, but at least :data:`POINTS` evaluations. Something is logged.

    Raises:
        ValueError: As :func:`stretched`, or if a part of a schedule would never begin.
    """
    iterations = iterations_of(config)
    options: dict[str, object] = {'train_cfg.max_iters': target}
    for path, part in schedules_of(config):
        if part.get('begin', 0) >= target:
            raise ValueError(
                f'{path} of {config.filename} begins at iteration {part.begin}, and the training '
                f'is to last {target}: give it more, or a schedule of its own'
            )
        longer = _stretched(copy.deepcopy(part), iterations, target, config.filename)
        options |= {f'{path}.{key}': value for key, value in longer.items() if value != part[key]}
    hooks = config.get('default_hooks') or {}
    for method, times in ((hooks.get('schedule') or {}).get('schedules') or {}).items():
        for key in ('start', 'ramp_iters', 'stop'):
            if times.get(key):
                place = f'default_hooks.schedule.schedules.{method}.{key}'
                options[place] = max(round(times[key] * target / iterations), 1)

    def interval(given: int, most: int) -> int:
        # Gradients gathered so far are in no checkpoint.
        step = config.get('optim_wrapper', {}).get('accumulative_counts', 1)
        return max(min(round(given * target / iterations), most) // step, 1) * step

    given = config.train_cfg.get('val_interval', iterations)
    options['train_cfg.val_interval'] = interval(given, target // POINTS)
    if (hooks.get('logger') or {}).get('interval', 1) > target:
        options['default_hooks.logger.interval'] = target
    checkpoint = hooks.get('checkpoint') or {}
    saved = checkpoint.get('interval', -1)
    if saved > 0 and not checkpoint.get('by_epoch', True):
        options['default_hooks.checkpoint.interval'] = interval(saved, target)
    return options


def _stretched(part: ConfigDict, iterations: int, target: int, name: str) -> ConfigDict:
    """A part of a schedule over ``iterations``, changed in place for ``target`` of them."""
    if 'monitor' in part:
        # It counts validations without progress, whatever by_epoch says: MMEngine wants it True.
        return part
    if part.get('by_epoch', True):
        raise ValueError(f'{name} schedules {part.type} by epochs: set by_epoch=False')
    if 'total_steps' in part and target != iterations:
        raise ValueError(
            f'{name} schedules {part.type} over total_steps={part.total_steps}, '
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
    return part
