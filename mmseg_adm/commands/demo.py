"""The main job on the drawn data set, command by command, and one closing table."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.config import Config
from rich.console import Console
from rich.table import Table

from mmseg_adm.datasets.synthetic_city import write_synthetic_city

TOOLS = Path(__file__).resolve().parent
NAME = 'adm_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128'
CONFIG = TOOLS.parent / 'configs' / 'adm' / f'{NAME}.py'


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description='Train, evaluate and export on drawn data')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--data-root', type=Path, default=Path('data/synthetic_city'))
    parser.add_argument('--cfg-options', nargs='+', default=[], help='passed on to tools/train.py')
    args = parser.parse_args()

    write_synthetic_city(args.data_root, num_train=240, num_val=48, size=(128, 256), seed=0)
    print(f'Data: {args.data_root}, drawn in the layout of Cityscapes')
    os.environ['SYNTHETIC_CITY_ROOT'] = str(args.data_root.resolve())

    options = ['default_hooks.pictures.indices=[0,1,2]', *args.cfg_options]
    started = time.time()
    run('train.py', CONFIG, '--work-dir', args.work_dir, '--cfg-options', *options)
    minutes = (time.time() - started) / 60
    checkpoint = Path((args.work_dir / 'last_checkpoint').read_text())
    run('test.py', CONFIG, checkpoint, '--work-dir', args.work_dir / 'test')
    student = args.work_dir / 'student.pth'
    run('export_student.py', CONFIG, checkpoint, '--out', student)
    Console().print(closing_table(args.work_dir, student, minutes))


def run(tool: str, *arguments: object) -> None:
    """Run one of the tools as a user would, and show the command."""
    command = [sys.executable, str(TOOLS / tool), *map(str, arguments)]
    print('\n$ python', ' '.join([f'tools/{tool}', *command[2:]]), flush=True)
    subprocess.run(command, check=True)


def closing_table(work_dir: Path, student: Path, minutes: float) -> Table:
    """What was trained, how good it is, and where it lies."""
    metrics = json.loads(max((work_dir / 'test').glob('*/*.json')).read_text())
    weights = torch.load(student, weights_only=True)['state_dict']
    config = Config.fromfile(student.with_suffix('.py'))
    pictures = sorted((work_dir / 'pictures').glob('*.png'), key=lambda path: path.stat().st_mtime)
    table = Table(title=f'Teacher and student, trained together with ADM in {minutes:.1f} min')
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
