"""Train, test and export on drawn data."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmseg_adm.paths import check_folder

from .flags import add_cfg_options, path

if TYPE_CHECKING:
    from rich.table import Table

CONFIG = 'mmseg_adm::adm/adm_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Where it writes, and overrides."""
    parser.add_argument('--work-dir', type=path, default='work_dirs/demo')
    parser.add_argument('--data-root', type=path, default='data/synthetic_city')
    add_cfg_options(parser, 'passed on to the training')


def check(args: argparse.Namespace) -> None:
    """Refuse folders that cannot be written into."""
    check_folder('--work-dir', args.work_dir)
    check_folder('--data-root', args.data_root)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mmseg_adm.datasets.synthetic_city import write_synthetic_city
    from mmseg_adm.tables import show

    from .flags import options_of
    from .launch import load_config

    # What the training would refuse is refused before its data are drawn.
    load_config(CONFIG, options_of(args.cfg_options))
    work_dir, data_root = Path(args.work_dir), Path(args.data_root)
    write_synthetic_city(data_root)
    print(f'Data: {data_root}, drawn in the layout of Cityscapes')
    os.environ['SYNTHETIC_CITY_ROOT'] = str(data_root.resolve())

    options = ['default_hooks.pictures.indices=[0,1,2]', *args.cfg_options]
    # A demo that was interrupted goes on.
    training = ('train', CONFIG, '--work-dir', work_dir, '--resume')
    if status := _run(*training, '--cfg-options', *options):
        return status
    config = work_dir / CONFIG.rpartition('/')[2]
    checkpoint = Path((work_dir / 'last_checkpoint').read_text())
    student = work_dir / 'export' / 'student.pth'
    for command in (('test', config, checkpoint), ('export', config, checkpoint, '--out', student)):
        if status := _run(*command):
            return status
    show(closing_table(work_dir, student))
    return 0


def _run(*command: object) -> int:
    """Run a command as a user would, and show it; returns its exit status."""
    words = [str(word) for word in command]
    print(f'\n$ mmseg-adm {shlex.join(words)}', flush=True)
    return subprocess.run([sys.executable, '-m', 'mmseg_adm', *words], check=False).returncode


def closing_table(work_dir: Path, student: Path) -> Table:
    """What was trained, how good it is, and where it lies."""
    import torch
    from mmengine.config import Config
    from rich.table import Table

    tested = max((work_dir / 'test').glob('*/*.json'), key=lambda path: path.name)
    metrics = json.loads(tested.read_text())
    weights = torch.load(student, weights_only=True)['state_dict']
    config = Config.fromfile(student.with_suffix('.py'))
    pictures = sorted((work_dir / 'pictures').glob('*.png'), key=lambda path: path.stat().st_mtime)
    table = Table(title='Teacher and student, trained together with ADM')
    table.add_column('')
    table.add_column('student', justify='right', overflow='fold')
    table.add_column('teacher', justify='right')
    for name, key in (('mIoU', 'mIoU'), ('pixel accuracy', 'aAcc')):
        table.add_row(name, *(f'{metrics[f"{member}/{key}"]:.2f}' for member in
                              ('student', 'teacher')))  # fmt: skip
    table.add_row('teacher - student', f'{metrics["gap/mIoU"]:.2f}', '')
    table.add_row('same prediction', f'{metrics["agreement"]:.1f} %', '')
    table.add_section()
    parameters = sum(value.numel() for value in weights.values())
    table.add_row('exported, for plain mmseg', f'{parameters / 1e6:.2f} M weights', '')
    table.add_row(f'  a {config.model.type}', str(student), '')
    table.add_row('  its config', str(student.with_suffix('.py')), '')
    if pictures:
        table.add_row(f'last of {len(pictures)} pictures', str(pictures[-1]), '')
    return table
