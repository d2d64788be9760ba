"""The metrics that a run's validations will have, and those that it waits for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from .kinds import is_average, is_distillation_config
from .registered import class_of
from .structure import hooks_of, metrics_of, schedules_of

# Of mmseg's IoUMetric, by what its iou_metrics asks for.
MEANS = {
    'mIoU': ('mIoU', 'mAcc'),
    'mDice': ('mDice', 'mAcc'),
    'mFscore': ('mFscore', 'mPrecision', 'mRecall'),
}
# Classes whose metrics are known before the first validation, and one that has none.
IOU_METRICS = ('IoUMetric', 'ClassIoUMetric')
WITHOUT_VALUES = 'DumpResults'
MEMBERS_LOOP = 'MembersValLoop'
# Of ClassIoUMetric, by class.
CLASS_PREFIX = 'IoU.'
# What MMEngine takes for the first metric that it is given.
FIRST = 'auto'


class Waiting(NamedTuple):
    """A setting that waits for metrics.

    Attributes:
        path: In the config.
        owner: The dict that holds it.
        option: Its key there.
        names: Of the metrics.
    """

    path: str
    owner: Any
    option: str
    names: tuple[str, ...]


class Validation(NamedTuple):
    """The metrics of a validation, as far as they are known before it.

    Attributes:
        names: As in the log.
        members: Whose metrics they are, the student first; none of a network alone.
        complete: Whether there are no others. Of metrics of one's own no more is known than that
            they begin with the name of a member.
    """

    names: list[str]
    members: list[str]
    complete: bool

    def may_have(self, metric: str) -> bool:
        """Whether it can be waited for."""
        prefix, of_a_class, _ = metric.partition(CLASS_PREFIX)
        known = f'{prefix}aAcc' if of_a_class else metric
        of_members = not self.members or metric.split('/')[0] in self.members
        ones_own = of_members and not self.complete
        return metric == FIRST or known in self.names or ones_own

    def hint(self, metric: str) -> str:
        """What is meant by one that it has not, and what there is."""
        # The same of a member, or of none, rather than what is spelled alike.
        near = [name for name in self.names
                if name.endswith(f'/{metric}') or metric.endswith(f'/{name}')]  # fmt: skip
        known = self.names
        if not self.complete:
            near = near or [f'{self.members[0]}/{metric}']
            known = [*(f'{name}/...' for name in self.members), *known]
        near = near or difflib.get_close_matches(metric, self.names, n=1)
        meant = f" Did you mean '{near[0]}'?" if near else ''
        return f'{meant} There are {", ".join(known)}'


def check_monitored(config: Config) -> None:
    """Refuse to wait for a metric that no validation of the run will have.

    MMEngine finds out at the first validation, after hours.

    Raises:
        ValueError: With the setting, the metric, and those that there are.
    """
    if not config.get('val_cfg'):
        return
    validation = _validation(config)
    for waiting in _waiting(config):
        for metric in waiting.names:
            if not validation.may_have(metric):
                raise ValueError(
                    f"{waiting.path} is '{metric}', which no validation has."
                    f'{validation.hint(metric)}'
                )


def monitor_members(config: Config, student: str, teacher: str) -> None:
    """Have what waits for a metric of a network alone wait for a member's, in place.

    Args:
        config: Of a pair, with the hooks and schedules of plain networks.
        student: Whose metrics are meant, but
        teacher: where a schedule is that member's own.
    """
    # What has no schedule of its own shares the student's.
    for waiting in {id(each.owner): each for each in _waiting(config)}.values():
        member = teacher if waiting.path.startswith(f'param_scheduler.{teacher}.') else student
        names = [name if name == FIRST else f'{member}/{name}' for name in waiting.names]
        one = isinstance(waiting.owner[waiting.option], str)
        waiting.owner[waiting.option] = names[0] if one else names


def check_metrics(config: Config, splits: tuple[str, ...]) -> None:
    """Refuse metrics that mmseg's ``IoUMetric`` does not know: it finds out after a whole pass.

    Raises:
        ValueError: With the setting, the metric, and those that there are.
    """
    for split in splits:
        for path, metric in metrics_of(config, split):
            if _kind(metric) in IOU_METRICS and not set(asked := _asked(metric)) <= MEANS.keys():
                raise ValueError(
                    f'{path}.iou_metrics must be some of {", ".join(MEANS)}, got {asked}'
                )


def _kind(metric: Any) -> str:
    """The name of a metric's class; '' if there is no such class, or a metric in its place."""
    kind = metric.get('type') if isinstance(metric, Mapping) else None
    return getattr(class_of(kind, registries.METRICS), '__name__', '')


def _asked(metric: Mapping) -> list[str]:
    asked = metric.get('iou_metrics', ['mIoU'])
    return [asked] if isinstance(asked, str) else list(asked)


def _waiting(config: Config) -> Iterator[Waiting]:
    for path, hook in hooks_of(config):
        kind = class_of(hook.get('type'), registries.HOOKS)
        for base, option in ((CheckpointHook, 'save_best'), (EarlyStoppingHook, 'monitor')):
            if isinstance(kind, type) and issubclass(kind, base):
                yield from _of_option(path, hook, option)
    for path, schedule in schedules_of(config):
        # Those of a plateau alone have it.
        yield from _of_option(path, schedule, 'monitor')


def _of_option(path: str, owner: Mapping, option: str) -> Iterator[Waiting]:
    given = owner.get(option)
    names = [name for name in (given if isinstance(given, (list, tuple)) else [given])
             if isinstance(name, str)]  # fmt: skip
    if names:
        yield Waiting(f'{path}.{option}', owner, option, tuple(names))


def _validation(config: Config) -> Validation:
    own = _own_names(config)
    names = own or []
    if members := _evaluated_members(config):
        names = _names_of_members(config, members, names)
    return Validation(names, members, complete=own is not None)


def _own_names(config: Config) -> list[str] | None:
    """Metrics of a network alone; ``None`` if they are not known before the first validation."""
    names: list[str] = []
    for _, metric in metrics_of(config, 'val'):
        if _kind(metric) == WITHOUT_VALUES:
            continue
        if _kind(metric) not in IOU_METRICS or not set(asked := _asked(metric)) <= MEANS.keys():
            return None
        prefix = f'{metric["prefix"]}/' if metric.get('prefix') else ''
        names += [f'{prefix}{name}' for kind in asked for name in ('aAcc', *MEANS[kind])]
    return list(dict.fromkeys(names))


def _evaluated_members(config: Config) -> list[str]:
    """The members that a validation scores, the student first; none of a network alone."""
    if not is_distillation_config(config):
        return []
    loop = class_of((config.get('val_cfg') or {}).get('type'), registries.LOOPS)
    if all(base.__name__ != MEMBERS_LOOP for base in getattr(loop, '__mro__', ())):
        return []
    student = config.model.get('student', 'student')
    members = [name for name, member in config.model.members.items() if member]
    return sorted(members, key=lambda name: name != student)


def _names_of_members(config: Config, members: list[str], own: list[str]) -> list[str]:
    """As ``MembersValLoop`` names them."""
    averages = [name for name, member in config.model.members.items()
                if isinstance(member, Mapping) and is_average(member)]  # fmt: skip
    _, *others = (name for name in members if name not in averages)
    names = [f'{member}/{name}' for member in members for name in own]
    for name in own:
        if name.rpartition('/')[2] == 'mIoU':
            names += [f'gap/{name}'] if len(others) == 1 else [f'gap/{o}/{name}' for o in others]
    compares = others and config.val_cfg.get('agreement', True)
    return [*names, *(['agreement'] if compares else [])]
