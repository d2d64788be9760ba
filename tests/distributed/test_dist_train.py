import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from factory import DEMO, ROOT
from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_adm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

MEMBERS = ('student', 'teacher')
SCRIPTS = sorted(ROOT.glob('tools/*.sh'))
SMALL = [
    'train_cfg.max_iters=2',
    'train_cfg.val_interval=2',
    'train_dataloader.batch_size=2',
    'default_hooks.checkpoint.interval=2',
    'default_hooks.logger.interval=1',
    *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
      for option in ('num_workers=0', 'persistent_workers=False')),
    *(f'model.members.{member}.{option}' for member, width in (('student', 4), ('teacher', 8))
      for option in (f'backbone.base_channels={width}', f'backbone.stem_channels={width}',
                     f'decode_head.in_channels={8 * width}', f'decode_head.channels={2 * width}')),
]  # fmt: skip


# Python runs a sitecustomize.py that it finds: this one says how each process left its group.
AT_EXIT = """
import atexit, os, pathlib, sys

def record():
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and 'RANK' in os.environ:
        left = 'in it' if distributed.is_initialized() else 'left'
        pathlib.Path(__file__).with_name('group_' + os.environ['RANK']).write_text(left)

atexit.register(record)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def launch(script: str, *args: object, folder: Path, data_root: Path, options=()) -> None:
    """Run one of the scripts on the CPU."""
    environment = os.environ | {
        'PYTHON': sys.executable,
        'PORT': str(free_port()),
        'SYNTHETIC_CITY_ROOT': str(data_root),
        'OMP_NUM_THREADS': '1',
        'CUDA_VISIBLE_DEVICES': '',
        'PYTHONPATH': str(folder),
    }
    result = subprocess.run(
        ['bash', str(ROOT / 'tools' / script), *map(str, args), '--cfg-options', *SMALL, *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.fixture(scope='module')
def folder(tmp_path_factory, city):
    """Where two processes trained, into ``run``."""
    folder = tmp_path_factory.mktemp('dist_train')
    (folder / 'sitecustomize.py').write_text(AT_EXIT)
    launch('dist_train.sh', DEMO, 2, '--work-dir', 'run', folder=folder, data_root=city)
    return folder


@pytest.fixture(scope='module')
def in_one_process(folder):
    """Metrics of the checkpoint as one process measures them."""
    config = Config.fromfile(folder / 'run' / DEMO.name)
    config.load_from = str(folder / 'run' / 'iter_2.pth')
    config.update(work_dir=str(folder / 'one'), launcher='none', model_wrapper_cfg=None)
    for name in ('pictures', 'student_checkpoint'):
        config.default_hooks.pop(name)
    return scores(Runner.from_cfg(config).test())


# Three images for two processes: one of them is read twice, or one process reads one less.
SHARES = {
    'padded': [],
    'uneven': ['test_dataloader.batch_size=2', 'test_dataloader.sampler.round_up=False'],
}


@pytest.fixture(scope='module', params=SHARES)
def in_two_processes(request, folder, city):
    """The same as two processes measure them, and the folder of their label maps."""
    launch(
        'dist_test.sh', DEMO, 'run/iter_2.pth', 2, '--work-dir', f'tested_{request.param}', '--out',
        f'maps_{request.param}', folder=folder, data_root=city, options=SHARES[request.param],
    )  # fmt: skip
    (path,) = (folder / f'tested_{request.param}').glob('*/*.json')
    # MMEngine writes this file on every rank: the end of the longer text may stick out.
    metrics, _ = json.JSONDecoder().raw_decode(path.read_text())
    return scores(metrics), folder / f'maps_{request.param}'


def scores(metrics: dict[str, float]) -> dict[str, float]:
    names = [f'{member}/{name}' for member in MEMBERS for name in ('aAcc', 'mIoU', 'mAcc')]
    return {name: float(metrics[name]) for name in [*names, 'gap/mIoU', 'agreement']}


def test_one_set_of_files_is_written(folder):
    weights = {path.name for path in (folder / 'run').rglob('*.pth')}
    assert weights == {
        'iter_2.pth', 'student_iter_2.pth', 'best_student_mIoU_iter_2.pth',
        'student_best_student_mIoU_iter_2.pth',
    }  # fmt: skip
    assert len(list((folder / 'run' / 'pictures').iterdir())) == 1
    assert len(list((folder / 'run').glob('*/*.log'))) == 1
    assert [line['step'] for line in log_of(folder)] == [1, 2, 2]


def test_both_processes_took_part(folder):
    record = read_checkpoint(folder / 'run' / 'iter_2.pth')['meta']['mmseg_adm']
    assert record['processes'] == 2
    assert record['settings']['train_dataloader.batch_size'] == 2
    config = Config.fromfile(folder / 'run' / DEMO.name)
    assert config.env_cfg.dist_cfg.backend == 'gloo'
    assert config.model_wrapper_cfg.device_ids is None
    assert config.model_wrapper_cfg.get('broadcast_buffers', True)


def test_processes_leave_their_group(folder):
    assert {path.name: path.read_text() for path in folder.glob('group_*')} == {
        'group_0': 'left',
        'group_1': 'left',
    }


def log_of(folder: Path) -> list[dict]:
    """What the run logged: two iterations, then one validation."""
    (path,) = (folder / 'run').glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_validation_measures_what_is_saved(folder, in_one_process):
    assert scores(log_of(folder)[-1]) == in_one_process


def test_two_processes_measure_what_one_does(in_one_process, in_two_processes, city):
    assert len(list(city.glob('leftImg8bit/val/*/*.png'))) % 2 == 1
    assert in_two_processes[0] == in_one_process


@pytest.mark.parametrize('member', MEMBERS)
def test_two_processes_write_every_label_map(member, in_two_processes, city):
    names = {path.name for path in city.glob('leftImg8bit/val/*/*.png')}
    assert {path.name for path in (in_two_processes[1] / member).iterdir()} == names


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash(script):
    result = subprocess.run(
        ['bash', '-n', str(script)], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, '')
    assert os.access(script, os.X_OK)
