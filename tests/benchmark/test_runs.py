import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
from command_line import command
from factory import ROOT
from mmengine.config import Config
from plans import line_of, shipped, tiny_plan, write_plan

from mmseg_adm import __version__
from mmseg_adm.benchmark import Results, launch, lock, read_plan, reading, run_plan, runs
from mmseg_adm.benchmark import provenance as provenance_module
from mmseg_adm.benchmark.launch import Launcher, assign_devices, visible_devices
from mmseg_adm.benchmark.lock import locked
from mmseg_adm.benchmark.provenance import changed_files, package_commit
from mmseg_adm.benchmark.results import collect
from mmseg_adm.commands.flags import options_of
from mmseg_adm.config import read_config

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
# Stands for one that looks around.
BESIDE = """
import os, pathlib, sys
import beside_the_plan
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
(folder / 'threads').write_text(' '.join(os.environ[each] for each in
                                            ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')))
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
    monkeypatch.setattr(launch, 'initial_weights', lambda plan, cell, folder: {})
    monkeypatch.setattr(runs._Sitting, 'prepare', lambda self: None)
    trains_by(monkeypatch, SCRIPT)


def trains_by(monkeypatch, script: str) -> None:
    monkeypatch.setattr(Launcher, '_launch', lambda self: [sys.executable, '-c', script])


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
    monkeypatch.setattr(launch, 'visible_devices', lambda: ['5'])
    plan = tiny_plan(tmp_path, seeds=(0,))
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work', jobs=2)
    seen = [path.read_text() for path in (tmp_path / 'work').rglob('devices')]
    assert seen == ['5', '5']


def test_trainings_import_what_the_user_has_on_the_path(stand_in, tmp_path, monkeypatch):
    trains_by(monkeypatch, CUSTOM)
    (tmp_path / 'own').mkdir()
    (tmp_path / 'own' / 'custom_backbone.py').write_text("NAME = 'imported'\n")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'own'))
    plan = tiny_plan(tmp_path, seeds=(0,))
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work')
    assert len(list((tmp_path / 'work').rglob('imported'))) == 2


@pytest.mark.parametrize('processes', [1, pytest.param(2, marks=pytest.mark.slow)])
def test_trainings_are_started_by_the_command(processes, tmp_path):
    plan = read_plan(write_plan(tmp_path, {}), processes)
    command = [*Launcher(plan, tmp_path, 1, 0)._launch(), '--help']
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


@pytest.mark.parametrize(
    ('methods', 'options', 'message'),
    [
        ({}, {'model.backbone.depth': 19}, "cell 'tiny/teacher': .*invalid depth 19 for resnet"),
        (shipped('dml'), {}, "cell 'tiny/dml': .*tau must be"),
        (
            {}, {'model.init_cfg': dict(type='Pretrained', checkpoint='none.pth')},
            "cell 'tiny/teacher': .*none.pth",
        ),
        ({}, {'load_from': 'none.pth'}, "cell 'tiny/teacher': .*none.pth"),
        ({'own': 'dml'}, {}, "cell 'tiny/own': .*different numbers of classes"),
    ],
    ids=['network', 'method', 'weights', 'load_from', 'classes'],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_before_anything_is_trained(
    methods, options, message, tmp_path, monkeypatch
):
    trains_by(monkeypatch, SCRIPT)
    if 'dml' in methods:
        methods = {'dml': dict(config=methods['dml'], cfg_options={'model.methods.dml.tau': -1})}
    if 'own' in methods:
        wrong = {'model.members.teacher.decode_head.num_classes': 3}
        methods = {'own': dict(config='dml', cfg_options=wrong)}
    plan = read_plan(write_plan(tmp_path, methods, teacher=options))
    results = Results(tmp_path / 'raw.jsonl')
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        run_plan(plan, results, tmp_path / 'work')
    assert '\n' not in str(refused.value)
    assert not results.lines


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


def test_each_training_has_one_thread_and_what_lies_beside_the_plan(
    stand_in, tmp_path, monkeypatch
):
    trains_by(monkeypatch, BESIDE)
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    plan = tiny_plan(tmp_path, seeds=(0,))
    (plan.path.parent / 'beside_the_plan.py').touch()
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work', jobs=2)
    seen = [path.read_text() for path in (tmp_path / 'work').rglob('threads')]
    assert seen == ['1 1', '1 1']


def test_a_cell_that_waits_for_its_teacher_holds_no_place(stand_in, tmp_path, monkeypatch):
    plan = read_plan(write_plan(tmp_path, shipped('kd', 'dml')))
    student, teacher, kd, dml = plan.cells
    trained, left = [], threading.Event()

    def train(sitting, cell):
        trained.append(cell)
        if cell is dml:
            left.set()
        if cell is teacher:  # it ends last, but for what waits for it
            assert left.wait(60)
        return {'status': 'done', 'settings': cell.settings}

    monkeypatch.setattr(runs._Sitting, '_train', train)
    run_plan(plan, Results(tmp_path / 'raw.jsonl'), tmp_path / 'work', jobs=2)
    assert trained[-1] is kd
    assert set(trained) == {student, teacher, kd, dml}


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
    trains_by(monkeypatch, HEIR)
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
        launcher = Launcher(plan, tmp_path, 1, number)
        with pytest.raises(FileNotFoundError):
            launcher.execute([str(tmp_path / 'no python')], tmp_path / 'log')
    assert launcher.devices.qsize() == 1


def test_without_a_checkout_the_version_is_named(tmp_path, monkeypatch):
    assert re.fullmatch(r'[0-9a-f]{12}', package_commit())
    # An environment inside the repository of somebody else.
    subprocess.run(['git', 'init', '-q', tmp_path], check=True)
    monkeypatch.setattr(provenance_module, 'ROOT', tmp_path / 'site-packages')
    assert package_commit() == f'mmseg_adm {__version__}'
    # A checkout on a machine without git.
    monkeypatch.setattr(provenance_module, 'ROOT', tmp_path)
    monkeypatch.setenv('PATH', '')
    assert package_commit() == f'mmseg_adm {__version__}'
    assert changed_files(tmp_path, ()) == []


@pytest.mark.parametrize('changes', [False, True])
def test_a_copy_without_its_history_says_what_it_is_of(changes, tmp_path, monkeypatch):
    named = '851e1d5-dirty' if changes else '851e1d5'
    monkeypatch.setattr(provenance_module, 'ROOT', tmp_path)
    monkeypatch.setenv(provenance_module.COMMIT, named)
    assert package_commit() == provenance_module.commit_of(tmp_path) == named
    assert changed_files(tmp_path, ()) == ([named] if changes else [])
    # Where there is a history, that counts.
    monkeypatch.setattr(provenance_module, 'ROOT', ROOT)
    assert re.fullmatch(r'[0-9a-f]{12}', package_commit())


def test_changes_are_those_of_code_and_not_of_what_is_written(tmp_path, monkeypatch):
    root, own = tmp_path / 'package', tmp_path / 'own'
    for folder in (root, own):
        subprocess.run(['git', 'init', '-q', folder], check=True)
    (root / 'mmseg_adm').mkdir()
    monkeypatch.setattr(provenance_module, 'ROOT', root)
    plans, written = own / 'plans', (own / 'plans' / 'work_dirs', own / 'plans' / 'results')
    for folder in written:
        folder.mkdir(parents=True)
        (folder / 'dumped.py').touch()
    (root / 'README.md').touch()
    (plans / 'notes.md').touch()
    assert changed_files(plans, written) == []
    (root / 'mmseg_adm' / 'new.py').touch()
    (plans / 'backbone.py').touch()
    assert changed_files(plans, written) == [str(plans / 'backbone.py'),
                                             str(root / 'mmseg_adm' / 'new.py')]  # fmt: skip


@pytest.mark.parametrize(
    ('flags', 'expected'), [((), ['run_plan']), (('--check',), ['check_plan']), (('--report',), [])]
)
def test_a_command_trains_or_checks_or_only_reports(flags, expected, tmp_path, monkeypatch):
    called = []
    for name in ('run_plan', 'check_plan'):
        monkeypatch.setattr(
            f'mmseg_adm.benchmark.{name}', lambda *_, name=name: called.append(name)
        )
    done = command('benchmark', write_plan(tmp_path, {}), *flags, cwd=tmp_path)
    assert (done.returncode, called) == (0, expected), done.stderr
    assert '| student alone | 0 | not run |' in done.stdout


def test_overrides_reach_the_command_as_they_are(tmp_path):
    given = {
        'model.test_cfg': dict(mode='slide', crop_size=(4, 6), stride=[(3,), 2]),
        'train_cfg.val_begin': None,
        'load_from': '/my disk/the work dirs/a.pth',
    }
    options = {**given, 'model.decode_head': dict(_delete_=True, type='FCNHead', dropout_ratio=0.0)}
    read = options_of(list(launch._flags(options)))
    base = dict(model=dict(test_cfg=dict(mode='whole'), decode_head=dict(type='PSPHead', a=1)),
                train_cfg=dict(val_begin=1))  # fmt: skip
    first, second = Config(base), Config(base)
    first.merge_from_dict(options)
    second.merge_from_dict(read)
    assert second.model.test_cfg.crop_size == (4, 6)
    assert second.load_from == given['load_from']
    assert first.to_dict() == second.to_dict()


def test_a_training_shorter_than_its_log_interval_is_named(tmp_path):
    path = tmp_path / 'run' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({'mIoU': 40.0, 'step': 2}) + '\n')
    torch.save({'state_dict': {}, 'meta': {}}, tmp_path / 'iter_2.pth')
    with pytest.raises(ValueError, match=r'no training iteration is logged in .*logger\.interval'):
        collect(tmp_path)


@pytest.fixture
def launcher(tmp_path):
    with locked(tmp_path / 'work') as lock:
        yield Launcher(tiny_plan(tmp_path), tmp_path / 'work', 1, lock)


WAITING = [sys.executable, '-c', 'import time; time.sleep(600)']


def test_a_training_is_ended_once_there_is_enough(launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, 'PACE', 0.01)
    answers = iter([False, False, True])
    status, memory = launcher.execute(WAITING, tmp_path / 'log', lambda: next(answers))
    assert status == -signal.SIGTERM
    assert memory > 0
    assert next(answers, None) is None


def test_nobody_asks_of_a_training_that_has_ended(launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, 'PACE', 0.01)
    asked = []
    command = [sys.executable, '-c', 'print("trained")']
    status, _ = launcher.execute(command, tmp_path / 'log', lambda: asked.append(1))
    assert status == 0
    assert (tmp_path / 'log').read_text() == 'trained\n'
    before = len(asked)
    time.sleep(0.1)
    assert len(asked) <= before + 1


def test_a_stop_ends_what_runs_and_what_would_begin(launcher, tmp_path):
    found = []
    thread = threading.Thread(
        target=lambda: found.append(launcher.execute(WAITING, tmp_path / 'log'))
    )
    thread.start()
    while not launcher.trainings:
        time.sleep(0.01)
    launcher.stop()
    thread.join(60)
    found.append(launcher.execute(WAITING, tmp_path / 'log'))
    assert [status for status, _ in found] == [-signal.SIGTERM] * 2
    assert not launcher.trainings


def test_a_cell_that_is_stopped_leaves_no_line(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(launch, '_end', lambda process: None)
    monkeypatch.setattr(Launcher, 'execute', lambda self, command, log: (self.stop(), (-15, 1))[1])
    plan = tiny_plan(tmp_path)
    states = []
    results = Results(tmp_path / 'results.jsonl')
    run_plan(plan, results, tmp_path / 'work', report=lambda cell, state: states.append(state))
    assert set(states) == {'running'}
    assert not (tmp_path / 'results.jsonl').exists()


@pytest.mark.parametrize(
    ('error', 'kind'),
    [(FileNotFoundError('weights'), FileNotFoundError), (KeyError('a'), ValueError)],
)
def test_a_cell_that_cannot_be_prepared_is_named(error, kind, tmp_path, monkeypatch):
    def fail(*args):
        raise error

    monkeypatch.setattr(runs, 'initial_weights', fail)
    results = Results(tmp_path / 'results.jsonl')
    with pytest.raises(kind, match=r"^cell 'tiny/(student|teacher)': "):
        run_plan(tiny_plan(tmp_path), results, tmp_path / 'work')


def test_missing_data_are_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv('SYNTHETIC_CITY_ROOT', str(tmp_path / 'nowhere'))
    monkeypatch.setattr(runs, 'multiply_adds', lambda row, processes: 1.0)
    monkeypatch.setattr(runs, 'initial_weights', lambda *args: None)
    results = Results(tmp_path / 'results.jsonl')
    # A config is read once in a process, and says where its data lie.
    monkeypatch.setattr(reading, '_config', read_config)
    with pytest.raises(FileNotFoundError, match=r'train data .*nowhere does not exist'):
        run_plan(tiny_plan(tmp_path), results, tmp_path / 'work')
    assert not results.lines


def test_other_code_begins_a_training_anew(stand_in, tmp_path, monkeypatch):
    """Nothing that earlier code left behind passes for today's."""
    plan = tiny_plan(tmp_path, 'kd', seeds=(0,))
    folders = {}
    for code in ('earlier', 'later'):
        monkeypatch.setattr(launch, 'code_hash', lambda imports, code=code: code)
        launcher = Launcher(plan, tmp_path, 1, 0)
        folders[code] = launcher.folder_of(plan.cells[0])
    assert folders['earlier'] != folders['later']
    teacher = plan.cells[1]
    # A teacher whose line counts teaches, whichever code trained it.
    weights = launcher.folder_of(teacher, 'earlier') / 'iter_2.pth'
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert launcher.weights_of(teacher, 'earlier') == weights
    assert launcher.weights_of(teacher) != weights
    own = launcher.folder_of(teacher) / 'iter_2.pth'
    own.parent.mkdir(parents=True)
    own.touch()
    assert launcher.weights_of(teacher, 'earlier') == own
