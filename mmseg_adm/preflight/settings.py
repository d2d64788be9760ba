"""Settings that a run would take without a word, and that would come to nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.config import Config

from mmseg_adm.config import is_distillation_config
from mmseg_adm.config.lengths import check_lengths
from mmseg_adm.config.pairing import RUNNER_KEYS
from mmseg_adm.config.structure import hooks_of
from mmseg_adm.paths import check_folder

from .report import Report

# What a Runner or this package reads at the top of a config, and what mmseg calls its pipelines.
KNOWN_KEYS = (
    *RUNNER_KEYS, 'model', 'data_preprocessor', 'work_dir', 'load_from', 'resume', 'launcher',
    'experiment_name', 'compile', 'find_unused_parameters', 'activation_checkpointing',
    'efficient_conv_bn_eval', 'train_pipeline', 'val_pipeline', 'test_pipeline',
)  # fmt: skip
# How alike two names must be for one to be the other misspelt. Of the variables in mmseg's configs
# one is as much like these, and is misspelt.
ALIKE = 0.85


def check_settings(config: Config, report: Report) -> None:
    """Look for what is misspelt, never happens, or teaches nobody.

    Args:
        config: Of the run.
        report: Takes a line for each that is found.
    """
    report.attempt('lengths', 'failed', check_lengths, config)
    report.attempt('folders', 'failed', _check_folders, config)
    for key in config:
        # Other names are variables of the config's text.
        near = difflib.get_close_matches(key, KNOWN_KEYS, n=1, cutoff=ALIKE)
        if near and key not in KNOWN_KEYS:
            text = f"nobody reads '{key}' at the top of the config: is '{near[0]}' meant?"
            report.add('names', 'warning', text)
    if is_distillation_config(config):
        methods = [name for name, method in (config.model.get('methods') or {}).items() if method]
        if not methods:
            text = 'there are none: the members train side by side. Set model.methods'
            report.add('methods', 'warning', text)
        _check_method_schedules(config, report)


def _check_folders(config: Config) -> None:
    """Refuse folders of hooks that nothing can be written into; none is made."""
    for path, hook in hooks_of(config):
        folder = str(hook.get('out_dir') or '')
        # Other hooks' relative ones lie in the work dir.
        own = path == 'default_hooks.checkpoint' or Path(folder).is_absolute()
        if folder and own and '://' not in folder:
            check_folder(f'{path}.out_dir', folder)


def _check_method_schedules(config: Config, report: Report) -> None:
    """Compare when methods start, ramp up and stop with the end of the training."""
    total = (config.get('train_cfg') or {}).get('max_iters')
    hook = (config.get('default_hooks') or {}).get('schedule') or {}
    if not total:
        return
    for name, options in (hook.get('schedules') or {}).items():
        path = f'default_hooks.schedule.schedules.{name}'
        if options.get('start', 0) >= total:
            text = f'{path}.start is {options["start"]}, but the run has {total} iterations: '
            report.add('methods', 'failed', f"{text}'{name}' would never run")
            continue
        for setting, value, consequence in _late(options, total):
            text = f'{path}.{setting} is {value}, but the run has {total} iterations'
            report.add('methods', 'warning', f"{text}: '{name}' {consequence}")


def _late(options: Mapping, total: int) -> Iterator[tuple[str, int, str]]:
    """What of a method's schedule lies beyond ``total`` iterations."""
    start, ramp, stop = (options.get(option) or 0 for option in ('start', 'ramp_iters', 'stop'))
    if start + ramp > total:
        yield 'ramp_iters', ramp, f'starts at {start} and would not come to full strength'
    if stop > total:
        yield 'stop', stop, 'would not stop'
