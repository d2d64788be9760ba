import json
import re
import subprocess
import sys
import threading

import pytest
import torch
from factory import ROOT
from plans import line_of, shipped, tiny_plan, write_plan

from mmseg_adm import __version__
from mmseg_adm.benchmark import Results, lock, read_plan, run_plan, runs
from mmseg_adm.benchmark import results as results_module
from mmseg_adm.benchmark.lock import locked
from mmseg_adm.benchmark.results import collect, provenance
from mmseg_adm.benchmark.runs import assign_devices, visible_devices

# Stands for a training: it writes down which devices it sees, and leaves nothing else.
SCRIPT = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
(folder / 'devices').write_text(os.environ['CUDA_VISIBLE_DEVICES'])
"""


# Stands for one whose network is the user's own.
CUSTOM = """
import pathlib, sys
import custom_backbone
(pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1]) / custom_backbone.NAME).touch()
"""
# Stands for one that looks for the lock among its open files.
HEIR = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
lock = folder.parents[3] / 'lock'
if any(os.path.realpath(f'/dev/fd/{number}') == str(lock) for number in os.listdir('/dev/fd')):
    (folder / 'inherited').touch()
"""


@pytest.fixture
def stand_in(monkeypatch):
    """Cells that run in no time and leave no results."""
    monkeypatch.setattr(runs, 'initial_weights', lambda plan, cell, folder: {})
    monkeypatch.setattr(runs._Sitting, '_launch', lambda self: [sys.executable, '-c', SCRIPT])


@pytest.mark.parametrize(
    ('available', 'jobs', 'processes', 'expected'),
    [
        ('0', 1, 1, ['0']),
        ('0', 3, 1, ['0', '0', '0']),
        ('35', 2, 1, ['3', '5']),
        ('35', 3, 1, ['3', '5', '3']),
        ('0123', 2, 2, ['0,1', '2,3']),
        ('01234', 3, 2, ['0,1', '2,3', '0,1']),
        ('0123', 1, 4, ['0,1,2,3']),
    ],
)
def test_devices_of_jobs(available, jobs, processes, expected):
    assert assign_devices(available, jobs, processes) == expected


def test_too_few_devices_are_refused():
    with pytest.raises(ValueError, match=r'4 processes needs as many GPUs, but 2 \(3, 5\) can'):
        assign_devices(['3', '5'], 1, 4)


@pytest.mark.parametrize(
    ('named', 'count', 'expected'),
    [
        (None, 2, ['0', '1']),
        ('3,5', 2, ['3', '5']),
        ('3,99', 1, ['3']),
        ('GPU-1a2b', 1, ['GPU-1a2b']),
        ('', 0, []),
        (None, 0, []),
    ],
)
def test_only_the_devices_of_the_user_are_used(named, count, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: count)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if named is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', named)
    assert visible_devices() == expected


def test_trainings_see_their_devices(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, 'visible_devices', lambda: ['5'])
    plan = tiny_plan(tmp_path, seeds=(0,))
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work', jobs=2)
    seen = [path.read_text() for path in (tmp_path / 'work').rglob('devices')]
    assert seen == ['5', '5']


def test_trainings_import_what_the_user_has_on_the_path(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(runs._Sitting, '_launch', lambda self: [sys.executable, '-c', CUSTOM])
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'custom_backbone.py').write_text("NAME = 'imported'\n")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'own'))
    plan = tiny_plan(tmp_path, seeds=(0,))
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work')
    assert len(list((tmp_path / 'work').rglob('imported'))) == 2


@pytest.mark.parametrize('processes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_trainings_are_started_by_the_command(processes, tmp_path):
    plan = read_plan(write_plan(tmp_path, {}), processes)
    sitting = runs._Sitting(plan, Results(tmp_path / 'raw.jsonl'), tmp_path, 1, print, 0)
    command = [*sitting._launch(), '--help']
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('--skip-preflight ') == processes


def test_a_training_that_leaves_nothing_fails_alone(stand_in, tmp_path):
    plan = tiny_plan(tmp_path, seeds=(0,))
    results = Results(tmp_path / 'raw.jsonl')
    run_plan(plan, results, tmp_path / 'work')
    assert [line['cell'] for line in results.lines] == [cell.key for cell in plan.cells]
    for line in results.lines:
        assert line['status'] == 'failed'
        assert line['reason'].startswith('FileNotFoundError: no log in ')
        assert line['log'].endswith('benchmark.log')


def test_a_network_that_cannot_be_built_fails_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(runs._Sitting, '_launch', lambda self: [sys.executable, '-c', SCRIPT])
    path = write_plan(tmp_path, shipped('kd'), teacher={'model.backbone.depth': 19})
    plan, results = read_plan(path), Results(tmp_path / 'raw.jsonl')
    log = tmp_path / 'work' / plan.cells[1].key / plan.cells[1].settings / 'benchmark.log'
    log.parent.mkdir(parents=True)
    log.write_text('earlier\n')
    run_plan(plan, results, tmp_path / 'work')
    student, teacher, method = results.lines
    assert student['reason'].startswith('FileNotFoundError: no log in ')  # it was started
    assert teacher['status'] == 'failed'
    assert 'invalid depth 19 for resnet' in teacher['reason']
    assert log.read_text().startswith('earlier\nTraceback')
    assert method['reason'] == 'its teacher did not finish'


@pytest.mark.parametrize('left', [None, 'iter_1.pth'])
def test_a_finished_teacher_whose_last_weights_are_gone_counts_no_more(left, stand_in, tmp_path):
    plan = read_plan(write_plan(tmp_path, shipped('kd')))
    results = Results(tmp_path / 'raw.jsonl')
    teacher = plan.cells[1]
    results.add(line_of(teacher, {'mIoU': 1.0}))
    if left:  # it was being trained again, and stopped
        folder = tmp_path / 'work' / teacher.key / teacher.settings
        folder.mkdir(parents=True)
        (folder / left).touch()
    seen = []
    run_plan(plan, results, tmp_path / 'work', report=lambda cell, state: seen.append(state))
    # The stand-in leaves no weights.
    assert seen == ['running', 'failed'] * 3
    assert results.lines[-1]['reason'] == 'its teacher did not finish'


@pytest.mark.parametrize(('threads', 'jobs', 'each'), [(8, 2, 4), (3, 2, 1), (1, 4, 1)])
def test_trainings_share_the_threads(threads, jobs, each, stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    plan = tiny_plan(tmp_path, seeds=(0,))
    sitting = runs._Sitting(plan, Results(tmp_path / 'raw.jsonl'), tmp_path, jobs, print, 0)
    assert sitting.threads == each


def test_one_benchmark_at_a_time_in_a_folder(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'PATIENCE', 0)
    plan, results = tiny_plan(tmp_path, seeds=(0,)), Results(tmp_path / 'raw.jsonl')
    with locked(tmp_path / 'work'), pytest.raises(BlockingIOError, match='work is in use: by'):
        run_plan(plan, results, tmp_path / 'work')
    assert not results.lines
    run_plan(plan, results, tmp_path / 'work')
    assert len(results.lines) == 2


def test_a_training_left_behind_keeps_the_folder(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, 'PATIENCE', 0)
    monkeypatch.setattr(runs._Sitting, '_launch', lambda self: [sys.executable, '-c', HEIR])
    plan = tiny_plan(tmp_path, seeds=(0,))
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work')
    assert len(list((tmp_path / 'work').rglob('inherited'))) == 2

    script = 'import sys; sys.stdin.read()'
    with locked(tmp_path) as number:
        heir = subprocess.Popen(
            [sys.executable, '-c', script], stdin=subprocess.PIPE, pass_fds=(number,)
        )
    with pytest.raises(BlockingIOError), locked(tmp_path):
        pass
    monkeypatch.undo()  # a data worker ends soon
    threading.Timer(0.5, heir.communicate).start()
    with locked(tmp_path):
        pass


def test_a_device_is_given_back_whatever_happens(stand_in, tmp_path, monkeypatch):
    plan = tiny_plan(tmp_path, seeds=(0,))
    with locked(tmp_path) as number:
        sitting = runs._Sitting(plan, Results(tmp_path / 'raw.jsonl'), tmp_path, 1, print, number)
        monkeypatch.setattr(sitting, '_launch', lambda: [str(tmp_path / 'no python')])
        with pytest.raises(FileNotFoundError):
            sitting.run(plan.cells[0])
    assert sitting.devices.qsize() == 1


def test_without_a_checkout_the_version_is_named(tmp_path, monkeypatch):
    cell = tiny_plan(tmp_path, seeds=(0,)).cells[0]
    assert re.fullmatch(r'[0-9a-f]{7,}(\+changes)?', provenance(cell)['commit'])
    # An environment inside the repository of somebody else.
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    monkeypatch.setattr(results_module, 'ROOT', tmp_path / 'site-packages')
    assert provenance(cell)['commit'] == f'mmseg_adm {__version__}'
    # A checkout on a machine without git.
    monkeypatch.setattr(results_module, 'ROOT', tmp_path)
    monkeypatch.setenv('PATH', '')
    assert provenance(cell)['commit'] == f'mmseg_adm {__version__}'


def test_a_training_shorter_than_its_log_interval_is_named(tmp_path):
    path = tmp_path / 'run' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({'mIoU': 40.0, 'step': 2}) + '\n')
    torch.save({'state_dict': {}, 'meta': {}}, tmp_path / 'iter_2.pth')
    with pytest.raises(ValueError, match=r'no training iteration is logged in .*logger\.interval'):
        collect(tmp_path)
