"""Whether the schedules of learning rates end when the run does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from .report import Report

# What counts from the beginning of a schedule.
SPANS = ('T_max', 'total_steps')
# Schedules by their place in the config.
Chain = dict[str, dict]
# By option what it is and what it should be.
Changes = dict[str, tuple[Any, Any]]


def check_schedules(config: Config, report: Report) -> None:
    """Warn of schedules that last longer or shorter than the run; name what to set.

    MMEngine gives a schedule without ``end`` the run's. One that counts iterations in a run by
    epochs, or is converted from epochs in a run by iterations, is left out: it takes the length
    of the data loader to compare.

    Args:
        config: Of the run.
        report: Takes a line, if there is a schedule to compare.
    """
    by_epoch = bool(config.train_cfg.get('max_epochs'))
    total = config.train_cfg.get('max_epochs') or config.train_cfg.get('max_iters')
    if not total:
        return
    compared, changes = 0, Changes()
    for chain in _chains(config.get('param_scheduler')):
        own = {path: each for path, each in chain.items() if each.get('by_epoch', True) == by_epoch}
        compared += len(own)
        changes |= _changes(own, total)
        for path, schedule in chain.items():
            # MMEngine's iteration loop is one epoch: a schedule by epochs never moves in it.
            if path not in own and not by_epoch and not schedule.get('convert_to_iter_based'):
                changes[f'{path}.by_epoch'] = (True, False)
    unit = 'epochs' if by_epoch else 'iterations'
    if changes:
        found = ', '.join(f'{option} is {present}' for option, (present, _) in changes.items())
        options = [f'{option}={wanted}'.replace(' ', '') for option, (_, wanted) in changes.items()]
        text = f'{found}, but the run has {total} {unit}: --cfg-options {" ".join(options)}'
        report.add('schedules', 'warning', text)
    elif compared:
        report.add('schedules', 'ok', f'end with the run, after {total} {unit}')


def _chains(schedules: Any, path: str = 'param_scheduler') -> Iterator[Chain]:
    """The schedules of each optimizer and each of its parameters."""
    if isinstance(schedules, dict) and 'type' not in schedules:
        for group, own in schedules.items():
            yield from _chains(own, f'{path}.{group}')
        return
    places = {path: schedules}
    if isinstance(schedules, (list, tuple)):
        places = {f'{path}.{index}': each for index, each in enumerate(schedules)}
    chains: dict[str, Chain] = {}
    for place, schedule in places.items():
        if isinstance(schedule, dict):  # in Python it may have been built
            name = _type_of(schedule)
            parameter = 'momentum' if name.endswith('Momentum') else schedule.get('param_name', '')
            chains.setdefault(parameter, {})[place] = schedule
    yield from chains.values()


def _changes(chain: Chain, total: int) -> Changes:
    """What has to change for the chain to end after ``total``."""
    lasting = [each.get('end') or total for each in chain.values() if not _warms_up(each)]
    last = max(lasting, default=total)
    return {
        f'{path}.{option}': (schedule[option], wanted)
        for path, schedule in chain.items()
        for option, wanted in _fitted(schedule, total, last).items()
        if schedule.get(option) not in (None, wanted)
    }


def _fitted(schedule: dict, total: int, last: int) -> dict[str, Any]:
    """The options of a schedule when ``total`` takes the place of ``last``, the end of its chain.

    What comes before the last schedule, such as a warm-up, keeps its length if it fits.
    """

    def scaled(value: int) -> int:
        return min(round(value * total / last), total)

    begin, end = schedule.get('begin', 0), schedule.get('end') or total
    begin = begin if begin < total else scaled(begin)
    if end > total or (end == last and not _warms_up(schedule)):
        end = max(scaled(end), 1)
    fitted: dict[str, Any] = {'begin': begin, 'end': end}
    # After a warm-up they are written either way.
    fitted |= {option: end - begin for option in SPANS if schedule.get(option) != end}
    milestones = schedule.get('milestones') or [0]
    if max(milestones) >= total:
        # Without an end nobody knows of which run they are.
        fitted['milestones'] = [scaled(each) for each in milestones] if last > total else '...'
    return fitted


def _warms_up(schedule: dict) -> bool:
    """Whether it ends where the learning rate is what it would be without it."""
    kind = _type_of(schedule)
    return 'Constant' in kind or ('Linear' in kind and schedule.get('end_factor', 1) == 1)


def _type_of(schedule: dict) -> str:
    return getattr(schedule['type'], '__name__', str(schedule['type']))
