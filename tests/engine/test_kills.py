"""A training is killed amid and between its writes; what is left on the disk is resumed."""

import ast
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pytest
from command_line import forget_managers
from factory import ROOT, demo_config
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmseg.registry import METRICS

from mmseg_adm.checkpoint import checkpoints_in, damage_of, safe_loading
from mmseg_adm.engine import TrainingRunner

sys.path.insert(0, str(ROOT / 'benchmarks'))

from soak import outcome

pytestmark = pytest.mark.core

ITERS = 4


@METRICS.register_module(force=True)
class Progress(BaseMetric):
    """Every second iteration is better, so that each validation finds a new best."""

    def process(self, data_batch, data_samples):
        self.results += [0] * len(data_samples)

    def compute_metrics(self, results):
        # Amid a training the last iteration, counted from 0; before one goes on the next.
        return {'mIoU': float((MessageHub.get_current_instance().get_info('iter') + 1) // 2)}


@pytest.fixture(autouse=True, scope='module')
def weights_only():
    with safe_loading():
        yield


def make_config(city, work_dir, **options):
    """A checkpoint every iteration, a validation every second one."""
    options = {
        'train_cfg__val_interval': 2,
        'default_hooks__checkpoint__interval': 1,
        'default_hooks__checkpoint__max_keep_ckpts': 2,
        'val_dataloader__dataset__indices': [0],
        'val_evaluator': dict(type='Progress', _delete_=True),
        **options,
    }
    return demo_config(city, work_dir, iters=ITERS, **options)


class Kills:
    """Copies of a work dir as a kill leaves it: amid a write, before each renaming and removal."""

    def __init__(self, work_dir: Path, copies: Path) -> None:
        self.work_dir, self.copies = work_dir, copies
        self.moments: list[str] = []

    def copy(self, moment: str, path: object) -> None:
        path = Path(path)
        if path.is_relative_to(self.work_dir) and path.exists():
            name = f'{len(self.moments):03d} {moment} {path.name}'
            shutil.copytree(self.work_dir, self.copies / name)
            self.moments.append(name)

    @contextmanager
    def watched(self):
        replace, remove, unlink, write = os.replace, os.remove, os.unlink, Path.write_bytes

        def watched_replace(source, target):
            self.copy('before renaming', source)
            replace(source, target)

        def watched_remove(path):
            self.copy('before removing', path)
            remove(path)

        def watched_unlink(path):
            self.copy('before removing', path)
            unlink(path)

        def watched_write(path, content):
            write(path, content[: len(content) // 2])
            self.copy('amid writing', path)
            return write(path, content)

        with (
            patch.object(os, 'replace', watched_replace),
            patch.object(os, 'remove', watched_remove),
            patch.object(os, 'unlink', watched_unlink),
            patch.object(Path, 'write_bytes', watched_write),
        ):
            yield


@pytest.fixture(scope='module')
def kills(city, tmp_path_factory):
    """A run that nobody killed, and what would have been left if somebody had."""
    folder = tmp_path_factory.mktemp('kills')
    kills = Kills(folder / 'run', folder / 'copies')
    runner = TrainingRunner.from_cfg(make_config(city, kills.work_dir))
    with kills.watched():
        runner.train()
    return kills


@pytest.fixture(scope='module')
def expected(kills):
    return outcome(kills.work_dir)


def different(expected: dict, found: dict) -> list[str]:
    return [key for key in expected | found if expected.get(key) != found.get(key)]


def resumed(city, copy: Path) -> dict:
    forget_managers()  # as in a new process
    TrainingRunner.from_cfg(make_config(city, copy, resume=True)).train()
    return outcome(copy)


def test_a_kill_leaves_no_half_file_under_a_final_name(kills):
    assert len(kills.moments) > 60
    seen = set()
    for moment in kills.moments:
        copy = kills.copies / moment
        new = {path for path in copy.glob('*.pth')
               if (path.name, path.stat().st_mtime_ns) not in seen}  # fmt: skip
        seen |= {(path.name, path.stat().st_mtime_ns) for path in new}
        assert not [path for path in new if damage_of(path)]
        for path in copy.glob('*.py'):
            assert ast.parse(path.read_text()).body, f'{moment}: {path.name} is empty'
        for pointer in copy.glob('last_checkpoint'):
            assert (copy / Path(pointer.read_text()).name).is_file() or 'removing' in moment
        for path in copy.rglob('*.png'):
            assert path.read_bytes().endswith(b'IEND\xaeB`\x82')


def test_a_kill_leaves_the_newest_checkpoint(kills):
    """From the first one on there is always one, whole as the test above has it."""
    moments = [moment for moment in kills.moments if 'renaming' not in moment]
    first = next(index for index, moment in enumerate(moments) if 'last_checkpoint' in moment)
    found = [checkpoints_in(kills.copies / moment, 'iter_{}.pth') for moment in moments]
    assert found[:first] == [[]] * first
    steps = [int(newest.stem.split('_')[1]) for newest, *_ in found[first:]]
    assert steps == sorted(steps)
    assert set(steps) == {1, 2, 3, 4}


def test_the_run_is_one_in_which_a_resume_could_go_wrong(expected):
    """Both validations find a new best, checkpoints are removed, and there are logged values."""
    assert expected['last_checkpoint'] == 'iter_4.pth'
    assert [name for name in expected if name.endswith('.pth')] == [
        'best_student_mIoU_iter_4.pth', 'iter_3.pth', 'iter_4.pth',
        'student_best_student_mIoU_iter_4.pth', 'student_iter_3.pth', 'student_iter_4.pth',
    ]  # fmt: skip
    assert {
        'metrics of 2', 'metrics of 4', 'iter_4.pth/best', 'iter_4.pth/logged/val/student/mIoU',
        'iter_4.pth/logged/train/loss', 'iter_4.pth/optimizer/state/0/exp_avg',
        'pictures/consensus_0_iter_2.png',
    } <= set(expected)  # fmt: skip


SOME = (
    'amid writing iter_1.pth',  # there is nothing yet
    'before removing student_iter_1.pth',
    'amid writing best_student_mIoU_iter_4.pth',  # amid the last validation
    'amid writing student_best_student_mIoU_iter_4.py',  # amid the last export
)


@pytest.mark.parametrize('moment', [
    pytest.param(moment, marks=[pytest.mark.slow] if 'student_' in moment else [])
    for moment in SOME
])  # fmt: skip
def test_a_killed_run_ends_as_the_undisturbed_one(moment, kills, expected, city):
    (name,) = (name for name in kills.moments if moment in name)
    assert different(expected, resumed(city, kills.copies / name)) == []


@pytest.mark.slow
def test_wherever_it_is_killed_a_run_ends_as_the_undisturbed_one(kills, expected, city):
    # A file before its renaming is removed unread, whole or half.
    others = [name for name in kills.moments
              if 'renaming' not in name and not any(moment in name for moment in SOME)]  # fmt: skip
    found = {name: different(expected, resumed(city, kills.copies / name)) for name in others}
    assert {name: paths for name, paths in found.items() if paths} == {}


@pytest.mark.slow
@pytest.mark.parametrize('processes', [1, 2])
def test_random_kills_change_nothing(processes, tmp_path):
    line = [sys.executable, str(ROOT / 'benchmarks' / 'soak.py'), '--kills=6', '--iterations=45']
    done = subprocess.run(
        [*line, f'--processes={processes}', f'--folder={tmp_path}'],
        env=os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r'resumed to the end +│ +6 ', done.stdout)
    assert re.search(r'differences +│ +0 ', done.stdout)


def test_a_soak_tells_what_is_different(kills, expected, tmp_path):
    """Were nothing compared, nothing would be different."""
    shutil.copytree(kills.work_dir, tmp_path / 'run')
    shutil.copy(tmp_path / 'run' / 'iter_3.pth', tmp_path / 'run' / 'iter_4.pth')
    (tmp_path / 'run' / 'student_iter_3.py').unlink()
    found = different(expected, outcome(tmp_path / 'run'))
    assert 'student_iter_3.py' in found
    weights = [key for key in found if key.startswith('iter_4.pth/state_dict/members.student.')]
    assert len(weights) > 50
