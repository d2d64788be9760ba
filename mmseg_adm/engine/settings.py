"""Which settings of a config decide on what is trained, and how two sets of them differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmengine.config import Config

# Parts of a config that decide on the training. The rest logs, evaluates, launches, or is a
# variable of its text.
PARTS = (
    'model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr',
    'randomness', 'default_hooks', 'custom_hooks', 'sync_bn', 'model_wrapper_cfg',
)  # fmt: skip
# Hooks that watch, log, draw, save or check; what any other one does may change the training.
WATCHING_HOOKS = (
    'AgreementProbeHook', 'CheckpointHook', 'ConsensusPictureHook', 'DataCheckHook',
    'DataStreamHook', 'DistSamplerSeedHook', 'EarlyStoppingHook', 'EmptyCacheHook',
    'FiniteLossHook', 'FiniteWeightsHook', 'IterTimerHook', 'LoggerHook', 'MemberPauseHook',
    'MemoryProfilerHook', 'NPUProfilerHook', 'ParamSchedulerHook', 'PreflightHook',
    'ProfilerHook', 'ResumeGuardHook', 'RuntimeInfoHook', 'SegVisualizationHook',
    'StudentCheckpointHook', 'SyncBuffersHook',
)  # fmt: skip
# What may differ all the same: where files lie and how many workers read them, the length of the
# training and when it is validated, and where networks start from, which their weights replace.
# A frozen member's weights are compared themselves.
FREE = re.compile(
    r'train_dataloader\.(.+\.)?(data_root|num_workers|persistent_workers|pin_memory|prefetch_factor'
    r'|multiprocessing_context|cache|lazy_init|serialize_data|backend_args(\..+)?)'
    r'|train_cfg\.(max_iters|max_epochs|val_interval|val_begin|dynamic_intervals(\..+)?'
    r'|fast_forward_on_resume)'
    r'|model_wrapper_cfg\.(type|find_unused_parameters|static_graph|detect_anomalous_params)'
    r'|model\.(.+\.)?(pretrained|checkpoint|init_cfg(\..+)?)'
)
# What a resumed run has from its checkpoint, whatever the config says.
RESTORED = re.compile(
    r'param_scheduler(\..+)?|randomness\.seed|optim_wrapper\.(.+\.)?(optimizer|paramwise_cfg)(\..+)?'
)
# How far a schedule reaches.
SPANS = re.compile(r'param_scheduler\.(.+\.)?(end|T_max|total_steps)')
LENGTHS = ('train_cfg.max_iters', 'train_cfg.max_epochs')

Settings = Mapping[str, Any]


class Change(NamedTuple):
    """A setting, by its path: what it was in the run, and what it is now."""

    path: str
    then: Any
    now: Any

    def __str__(self) -> str:
        then, now = ('not set' if value is None else value for value in (self.then, self.now))
        return f'{self.path}: {then} then, {now} now'


def settings_of(config: Config) -> dict[str, Any]:
    """What a run depends on, by dotted path, in the types that a checkpoint may hold.

    What is ``None`` counts as not set.
    """
    parts = {part: config.get(part) for part in PARTS}
    hooks = {
        name: hook for name, hook in (parts['default_hooks'] or {}).items() if not _watches(hook)
    }
    parts['default_hooks'] = hooks
    parts['custom_hooks'] = [each for each in parts['custom_hooks'] or [] if not _watches(each)]
    return dict(_flat('', json.loads(json.dumps(parts, default=_named))))


def differences(then: Settings, now: Settings) -> list[Change]:
    """Where settings differ, but for what may and for schedules that end with a longer run."""
    paths = sorted(path for path in {*then, *now} if not FREE.fullmatch(path))
    found = [Change(path, then.get(path), now.get(path)) for path in paths
             if then.get(path) != now.get(path)]  # fmt: skip
    return [each for each in found if each not in spans(then, now)]


def spans(then: Settings, now: Settings) -> list[Change]:
    """Schedules that were to end with the training, and do so with one of another length."""
    longer = {
        now.get(path, 0) - then.get(path, 0)
        for path in LENGTHS
        if isinstance(then.get(path), int) and isinstance(now.get(path), int)
    } - {0}
    return [
        Change(path, then[path], now[path])
        for path in sorted(then.keys() & now.keys())
        if SPANS.fullmatch(path) and isinstance(then[path], int) and isinstance(now[path], int)
        and now[path] - then[path] in longer
    ]  # fmt: skip


def _watches(hook: Any) -> bool:
    kind = hook.get('type') if isinstance(hook, Mapping) else type(hook)
    return getattr(kind, '__name__', str(kind)).split('.')[-1] in WATCHING_HOOKS


def _named(value: Any) -> str:
    """What Python put into a config: its name, which is the same in the next process."""
    kind = value if hasattr(value, '__qualname__') else type(value)
    return f'{kind.__module__}.{kind.__qualname__}'


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Settings by path; lists of numbers and names are one setting each."""
    items: Any = None
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        items = enumerate(value)
    if items is not None:
        for key, child in items:
            yield from _flat(f'{path}.{key}' if path else str(key), child)
    elif value is not None:
        yield path, value
