"""Plans and raw lines for the tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from factory import ROOT

from mmseg_adm.benchmark import Plan, Results, read_plan
from mmseg_adm.benchmark.provenance import code_hash, device_name

SETTING = '1xb8-demo_synthetic-city-96x128.py'
PAIR = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8'
TEXT = """
seeds = {seeds}
cfg_options = {options}
pairs = dict(tiny=dict(
    student='{root}/configs/pspnet/pspnet_r18-w16-d8_{setting}',
    teacher=dict(config='{root}/configs/pspnet/pspnet_r18-w32-d8_{setting}', cfg_options={teacher}),
    methods={methods},
    **{pair},
))
"""
TRAINING = {
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 1,
    'param_scheduler.0.end': 2,
    'default_hooks.checkpoint.interval': 1,
    'default_hooks.checkpoint.max_keep_ckpts': 1,
    'default_hooks.checkpoint.save_best': None,
    'default_hooks.logger.interval': 1,
    'train_dataloader.batch_size': 2,
    'val_evaluator.type': 'mmseg_adm.ClassIoUMetric',
    **{f'{split}_dataloader.{option}': value for split in ('train', 'val', 'test')
       for option, value in (('num_workers', 0), ('persistent_workers', False))},
}  # fmt: skip
FINGERPRINT = {'loss': 1.0, 'step': 1}
# By row and seed.
SCORES = {
    'student': {0: {'mIoU': 40.0}, 1: {'mIoU': 44.0}, 2: {'mIoU': 42.0}},
    'teacher': {0: {'mIoU': 50.0}, 1: {'mIoU': 50.0}, 2: {'mIoU': 53.0}},
    'dml': {
        0: {'student/mIoU': 41.0, 'teacher/mIoU': 49.0, 'agreement': 90.0},
        1: {'student/mIoU': 46.0, 'teacher/mIoU': 49.0, 'agreement': 91.0},
        2: {'student/mIoU': 45.0, 'teacher/mIoU': 52.0, 'agreement': 92.0},
    },
}


def shipped(*methods: str) -> dict[str, str]:
    """Configs by method."""
    return {name: f'{ROOT}/configs/{name}/{name}_{PAIR}_{SETTING}' for name in methods}


def write_plan(
    folder: Path,
    methods: dict,
    seeds: tuple = (0,),
    options: dict = TRAINING,
    teacher: dict | None = None,
    **pair: object,
) -> Path:
    """A plan in a folder that has the shipped configs beside it.

    It names them where they lie, so that they are read once in a process. ``teacher`` are its
    options, ``pair`` what the pair says beside its networks and methods.
    """
    if not (folder / 'configs').exists():
        (folder / 'configs').symlink_to(ROOT / 'configs')
    (folder / 'plans').mkdir(exist_ok=True)
    path = folder / 'plans' / 'tiny.py'
    path.write_text(
        TEXT.format(
            root=ROOT,
            seeds=seeds,
            options=options,
            methods=methods,
            setting=SETTING,
            teacher=teacher or {},
            pair=pair,
        )
    )
    return path


def tiny_plan(folder: Path, *methods: str, seeds: tuple = (0, 1, 2)) -> Plan:
    """A plan that nobody trains."""
    return read_plan(write_plan(folder, shipped(*methods), seeds))


def line_of(cell, *evaluations: dict, **others) -> dict:
    """A raw line of a finished cell, trained here, by today's code, from a clean tree."""
    steps = [dict(row, step=100 * (index + 1)) for index, row in enumerate(evaluations)]
    return {
        'cell': cell.key, 'settings': cell.settings, 'status': 'done', 'device': device_name(),
        'code': today(), 'changes': [], 'fingerprint': FINGERPRINT, 'teacher': FINGERPRINT,
        'iterations': 10, 'multiply-adds': 3e9, 'seconds per iteration': 0.5, 'memory (MiB)': 600,
        'extra parameters': 0, 'evaluations': steps, **others,
    }  # fmt: skip


@cache
def today() -> str:
    """The hash of today's code."""
    return code_hash()


def fill(plan: Plan, path: Path, scores: dict[str, dict[int, dict]]) -> Results:
    """Results with one evaluation a cell, by row and seed; rows that are not there did not run."""
    results = Results(path)
    for cell in plan.cells:
        if row := scores.get(cell.row.name, {}).get(cell.seed):
            results.add(line_of(cell, row))
    return results
