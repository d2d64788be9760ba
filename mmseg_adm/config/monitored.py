"""The metrics that a run's validations will have, and those that it waits for."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from mmengine.config import Config

from .kinds import is_distillation_config

# Of mmseg's IoUMetric, by what its iou_metrics asks for.
MEANS = {
    'mIoU': ('mIoU', 'mAcc'),
    'mDice': ('mDice', 'mAcc'),
    'mFscore': ('mFscore', 'mPrecision', 'mRecall'),
}
METRICS = ('IoUMetric', 'mmseg.IoUMetric', 'mmseg_adm.ClassIoUMetric')
MEMBERS_LOOP = 'mmseg_adm.MembersValLoop'
# Of ClassIoUMetric, by class.
CLASS_PREFIX = 'IoU.'


def check_monitored(config: Config) -> None:
    """Refuse to wait for a metric that no validation of the run will have.

    MMEngine finds out at the first validation, after hours. Nothing is checked where metrics of
    one's own are among those of the run.

    Raises:
        ValueError: With the setting, the metric, and those that there are.
    """
    names = _metrics(config)
    if not names:
        return
    for setting, metric in _waited_for(config):
        if (
            metric == 'auto'
            or metric in names
            or metric.rpartition('/')[2].startswith(CLASS_PREFIX)
        ):
            continue
        # The same of a member, rather than what is spelled alike.
        near = [name for name in names if name.endswith(f'/{metric}')]
        near = near or difflib.get_close_matches(metric, names, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ''
        raise ValueError(
            f"{setting} is '{metric}', which no validation has.{hint} There are {', '.join(names)}"
        )


def check_metrics(config: Config, splits: tuple[str, ...]) -> None:
    """Refuse metrics that mmseg's ``IoUMetric`` does not know: it finds out after a whole pass.

    Raises:
        ValueError: With the setting, the metric, and those that there are.
    """
    for split in splits:
        for evaluator in _evaluators(config, split):
            asked = evaluator.get('iou_metrics', ['mIoU'])
            wrong = [each for each in asked if each not in MEANS]
            if evaluator.get('type') in METRICS and wrong:
                raise ValueError(
                    f'{split}_evaluator.iou_metrics must be some of {", ".join(MEANS)}, got {asked}'
                )


def _evaluators(config: Config, split: str) -> list:
    given = config.get(f'{split}_evaluator') or []
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _waited_for(config: Config) -> Iterator[tuple[str, str]]:
    hooks = {f'default_hooks.{name}': hook
             for name, hook in (config.get('default_hooks') or {}).items()}  # fmt: skip
    hooks |= {f'custom_hooks.{index}': hook
              for index, hook in enumerate(config.get('custom_hooks') or [])}  # fmt: skip
    for path, hook in hooks.items():
        for option in ('save_best', 'monitor'):
            given = (hook or {}).get(option)
            for metric in given if isinstance(given, (list, tuple)) else [given]:
                if isinstance(metric, str):
                    yield f'{path}.{option}', metric


def _metrics(config: Config) -> list[str]:
    """Names as in the log; none if they are not known before the first validation."""
    names: list[str] = []
    for evaluator in _evaluators(config, 'val'):
        asked = evaluator.get('iou_metrics', ['mIoU'])
        if evaluator.get('type') not in METRICS or not set(asked) <= MEANS.keys():
            return []
        prefix = f'{evaluator["prefix"]}/' if evaluator.get('prefix') else ''
        names += [f'{prefix}{name}' for kind in asked for name in ('aAcc', *MEANS[kind])]
    names = list(dict.fromkeys(names))
    if not is_distillation_config(config):
        return names
    if (config.get('val_cfg') or {}).get('type') != MEMBERS_LOOP:
        return []
    members = [name for name, member in config.model.members.items() if member]
    student = config.model.get('student', 'student')
    others = [name for name in members if name != student]
    gaps = ['gap/mIoU'] if len(others) == 1 else [f'gap/{name}/mIoU' for name in others]
    return [*(f'{member}/{name}' for member in members for name in names), *gaps, 'agreement']
