"""Optimizers and schedules of a pair: one for all, or each member its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from .kinds import learning_rate_factor
from .recipes import STUDENT, TEACHER
from .schedules import iterations_of, schedule_of, stretched

# Of an optimizer wrapper: what members that take one step have in common.
SHARED_OPTIONS = ('type', 'accumulative_counts', 'loss_scale', 'dtype')


def pair_optimizers(paired: Config, configs: Mapping[str, Config], recipe: Config) -> None:
    """Give each member of a pair an optimizer and a schedule of its own, where one would not do.

    Args:
        paired: Is changed in place; it has those of the student's config.
        configs: Of student and teacher.
        recipe: Of the method.

    Raises:
        ValueError: If a config has none, or a schedule that cannot be stretched.
    """
    frozen = recipe.model.members.teacher.get('frozen', False)
    for role, config in configs.items():
        if role == STUDENT or not frozen:
            _check_trains(role, config)
    own, other = configs[STUDENT], configs[TEACHER]
    schedule = schedule_of(own)
    wrappers = {STUDENT: own.optim_wrapper}
    schedules = {STUDENT: schedule, 'rest': schedule}
    if not frozen:
        wrappers[TEACHER] = _slowed(other.optim_wrapper, learning_rate_factor(recipe, TEACHER))
        schedules[TEACHER] = stretched(other, iterations_of(own))
    alike = all(wrapper == own.optim_wrapper for wrapper in wrappers.values()) and all(
        each == schedule for each in schedules.values()
    )
    # A constructor of layer-wise rates reads a plain segmentor, which is only the member; and
    # clipped are the gradients of one network, not of all of them by their joint norm.
    if alike and not own.optim_wrapper.get('clip_grad') and 'constructor' not in own.optim_wrapper:
        return
    groups: dict = {role: _group(wrapper) for role, wrapper in wrappers.items()}
    paired.optim_wrapper = dict(
        constructor='mmseg_adm.GroupOptimWrapperConstructor',
        **groups,
        rest=dict(optimizer=copy.deepcopy(own.optim_wrapper.optimizer)),
        **_shared_options(wrappers),
    )
    paired.param_scheduler = schedules


def _check_trains(role: str, config: Config) -> None:
    for key in ('optim_wrapper', 'train_cfg'):
        if not config.get(key):
            raise ValueError(f'the config of the {role}, {config.filename}, has no {key}')


def _slowed(wrapper: ConfigDict, factor: float) -> ConfigDict:
    wrapper = copy.deepcopy(wrapper)
    if factor != 1:
        if 'lr' not in wrapper.optimizer:
            raise ValueError(
                f'a trained teacher goes on at {factor} of its learning rate, and the optimizer of '
                f'its config, {wrapper.optimizer.type}, has no lr: write it out'
            )
        wrapper.optimizer.lr *= factor
    return wrapper


def _group(wrapper: ConfigDict) -> dict:
    group = {key: value for key, value in wrapper.items() if key not in SHARED_OPTIONS}
    return copy.deepcopy(group)


def _shared_options(wrappers: Mapping[str, ConfigDict]) -> dict:
    """What holds for one step of all: accumulation is the student's, mixed precision anyone's."""
    options = {}
    if (counts := wrappers[STUDENT].get('accumulative_counts', 1)) > 1:
        options['accumulative_counts'] = counts
    amp = [role for role, each in wrappers.items() if each.get('type') == 'AmpOptimWrapper']
    if not amp:
        return options
    if len(amp) < len(wrappers):
        print_log(
            f'The config of the {amp[0]} trains in mixed precision, the other does not: both do '
            'now, because they take one step together',
            'current',
            level=30,
        )
    wrapper = wrappers[amp[0]]
    options['dtype'] = wrapper.get('dtype') or 'float16'
    scale = wrapper.get('loss_scale', 'dynamic')
    if scale != 'dynamic':
        options['loss_scale'] = scale if isinstance(scale, Mapping) else dict(init_scale=scale)
    return options
