"""What somebody has who installed the wheel: no clone, an empty folder, configs by name."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from factory import ROOT

from mmseg_adm.commands.demo import STUDENT, TEACHER

pytestmark = pytest.mark.slow

PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
LOADERS = [
    f'{split}_dataloader.{option}'
    for split in ('train', 'val', 'test')
    for option in ('num_workers=0', 'persistent_workers=False')
]
# Beside the plan of benchmarks/README.md: the demo's networks, long enough to teach something.
NETWORK = """
_base_ = 'mmseg_adm::fpn/fpn_r18-{width}_1xb4-demo_synthetic-city-96x128.py'
train_cfg = dict(max_iters=40, val_interval=40)
param_scheduler = [dict(type='PolyLR', eta_min=1e-5, power=0.9, end=40, by_epoch=False)]
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(indices=6))
"""


class Installed:
    """A fresh environment with the wheel, which sees the packages of this one but for ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / 'empty'
        self.folder.mkdir()
        self.bin = folder / 'venv' / 'bin'
        source = folder / 'source'
        ignored = shutil.ignore_patterns('__pycache__')
        for name in ('mmseg_adm', 'configs'):
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
        for name in ('setup.py', 'pyproject.toml', 'README.md', 'MANIFEST.in'):
            shutil.copy(ROOT / name, source)
        pip = (sys.executable, '-m', 'pip', '--disable-pip-version-check')
        self.call(*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', folder, source)
        self.call(sys.executable, '-m', 'venv', '--without-pip', folder / 'venv')
        (wheel,) = folder.glob('mmseg_adm-*.whl')
        self.call(*pip, '--python', self.bin / 'python', 'install', '--no-deps', wheel)
        (site,) = (folder / 'venv' / 'lib').glob('python*/site-packages')
        # A path alone: what is installed there to be edited stays invisible.
        (site / 'stack.pth').write_text(sysconfig.get_path('purelib'))

    def call(self, *command: object, **environment: str) -> str:
        own = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        done = subprocess.run(
            [str(word) for word in command],
            cwd=self.folder,
            env=own | {'OMP_NUM_THREADS': '1'} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        self.errors = done.stderr
        return done.stdout

    def __call__(self, *argv: object) -> str:
        """Run ``mmseg-adm`` on the data that the demo has drawn; no third party warns."""
        data = str(self.folder / 'data' / 'synthetic_city')
        printed = self.call(self.bin / 'mmseg-adm', *argv, SYNTHETIC_CITY_ROOT=data)
        assert 'Warning' not in self.errors
        assert 'Could not import OneDL' not in printed
        return printed


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    return Installed(tmp_path_factory.mktemp('wheel'))


@pytest.fixture(scope='module')
def demo(installed):
    """What the demo printed, in few iterations of narrow crops."""
    return installed('demo', '--cfg-options', *LOADERS, 'train_cfg.max_iters=20',
                     'train_cfg.val_interval=20', 'train_dataloader.batch_size=2',
                     'val_dataloader.dataset.indices=6', 'default_hooks.logger.interval=10',
                     'default_hooks.checkpoint.interval=20')  # fmt: skip


@pytest.fixture(scope='module')
def paired(installed, demo):
    """Where two networks of mmseg were trained."""
    crop = '(48,64)'
    installed(
        'train', '--student', PSP, '--teacher', PSP, '--method', 'adm', '--no-pretrained',
        '--work-dir', 'run',
        '--cfg-options', *LOADERS,
        *(f'{split}_dataloader.{inner}data_root=data/synthetic_city' for split, inner in
          (('train', 'dataset.dataset.'), ('val', 'dataset.'), ('test', 'dataset.'))),
        'train_dataloader.batch_size=2',
        'train_dataloader.dataset.dataset.pipeline.2.scale=(96,48)',
        f'train_dataloader.dataset.dataset.pipeline.3.crop_size={crop}',
        f'model.data_preprocessor.size={crop}',
        'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
        *(f'{split}_dataloader.dataset.pipeline.1.scale=(96,48)' for split in ('val', 'test')),
        'default_hooks.checkpoint.interval=2',
    )  # fmt: skip
    (config,) = (installed.folder / 'run').glob('adm_*.py')
    return config


def test_the_package_is_the_wheels(installed):
    facts = installed('info')
    assert f'in {installed.bin.parent}/lib/' in facts
    assert 'OpenMMLab stack: ' in facts
    assert installed.call(installed.bin / 'python', '-m', 'mmseg_adm') == installed()


def test_the_demo(installed, demo):
    assert demo.count('$ mmseg-adm train ') == 3
    assert demo.count('$ mmseg-adm export ') == 1
    table = demo[demo.index('A student alone, the same student distilled, and their teacher') :]
    for row in ('student alone', 'student distilled', 'teacher', 'distilled/export/student.pth'):
        assert row in table
    left = installed.folder / 'work_dirs' / 'demo'
    assert (left / 'distilled' / 'export' / 'student.pth').is_file()
    assert (left / 'distilled' / 'export' / 'student.py').is_file()
    assert (left / 'demo.png').is_file()


def test_a_pair_is_tested_and_painted(installed, paired):
    printed = installed('test', paired, paired.parent / 'iter_2.pth', '--show-dir', 'shown',
                        '--cfg-options', 'test_dataloader.dataset.indices=3')  # fmt: skip
    assert 'student/mIoU' in printed
    assert len(list((installed.folder / 'shown').rglob('*.png'))) == 2 * 3


@pytest.mark.parametrize('flags', [[], ['--onnx', '--shape', '64', '64']], ids=['plain', 'onnx'])
def test_a_pair_is_exported(flags, installed, paired):
    printed = installed('export', *flags, paired, paired.parent / 'iter_2.pth')
    suffix = '.onnx' if flags else '.pth'
    written = paired.parent / 'export' / f'student_iter_2{suffix}'
    assert f'wrote {written}' in printed
    assert written.is_file()


def test_the_plan_in_the_documents(installed, demo):
    page = (ROOT / 'benchmarks' / 'README.md').read_text()
    (text,) = re.findall(r'<!-- file: my_plan.py -->\n```python\n(.*?)```', page, re.DOTALL)
    assert len(text.splitlines()) <= 10
    assert 'seeds = (0, 1, 2)' in text
    own = installed.folder / 'own'
    own.mkdir()
    (own / 'my_plan.py').write_text(text.replace('seeds = (0, 1, 2)', 'seeds = (0,)'))
    for name, width in (('student', 'w16'), ('teacher', 'w32')):
        (own / f'{name}.py').write_text(NETWORK.format(width=width))
    printed = installed('benchmark', 'own/my_plan.py')
    rows = {row.split('|')[1].strip(): row for row in printed.splitlines() if row.startswith('|')}
    assert {'student alone', 'teacher alone', 'adm', 'cwd', 'student-longer'} < set(rows)
    assert not [row for row in rows.values() if 'not run' in row]
    assert (own / 'results' / 'my_plan.md').is_file()


def test_a_distributed_start(installed, demo):
    options = [*LOADERS, 'train_cfg.max_iters=1', 'train_cfg.val_interval=1',
               'train_dataloader.batch_size=2', 'default_hooks.checkpoint.interval=1']  # fmt: skip
    installed.call(
        installed.bin / 'python', '-m', 'torch.distributed.run', '--standalone',
        '--nproc_per_node=2', '-m', 'mmseg_adm', 'train', '--launcher', 'pytorch',
        '--student', STUDENT, '--teacher', TEACHER, '--method', 'dml',
        '--work-dir', 'two', '--cfg-options', *options,
        CUDA_VISIBLE_DEVICES='', SYNTHETIC_CITY_ROOT='data/synthetic_city',
    )  # fmt: skip
    assert (installed.folder / 'two' / 'iter_1.pth').is_file()
