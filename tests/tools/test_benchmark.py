import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factory import ROOT
from plans import shipped, write_plan

from mmseg_adm.benchmark import lock

pytestmark = pytest.mark.slow


@pytest.fixture
def start(tmp_path, city):
    """Starts the tool in a group of its own, as a terminal or a job scheduler does."""

    def launch(plan, *flags):
        return subprocess.Popen(
            [sys.executable, str(ROOT / 'tools' / 'benchmark.py'), str(plan), '--work-dir',
             str(tmp_path / 'work'), '--results', str(tmp_path / 'results'), *flags],
            env=os.environ | {'PYTHONPATH': str(ROOT), 'SYNTHETIC_CITY_ROOT': str(city)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # A suite that runs in the background hands down that Ctrl-C is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    return launch


def lines_of(folder: Path) -> list[dict]:
    path = folder / 'results' / 'tiny.jsonl'
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def test_a_killed_benchmark_goes_on_where_it_was(start, tmp_path):
    plan = write_plan(tmp_path, shipped('kd'))
    killed = start(plan)
    deadline = time.monotonic() + 240
    while not lines_of(tmp_path) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (first,) = lines_of(tmp_path)
    assert (first['cell'], first['status']) == ('tiny/student/0', 'done')

    again = start(plan)
    output, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors[-3000:]
    lines = lines_of(tmp_path)
    assert lines[0] == first
    assert [line['cell'] for line in lines] == [f'tiny/{n}/0' for n in ('student', 'teacher', 'kd')]
    assert all(line['status'] == 'done' for line in lines)
    assert 'tiny/student/0: finished earlier' in errors
    assert [row['step'] for row in lines[2]['evaluations']] == [1, 2]
    assert {'student/mIoU', 'teacher/mIoU', 'student/IoU.road'} < set(lines[2]['evaluations'][-1])
    assert lines[2]['memory (MiB)'] > 100
    assert lines[2]['seconds per iteration'] > 0
    # The frozen teacher is the one that was trained alone with this seed.
    teachers = [line['evaluations'][-1] for line in lines[1:]]
    assert teachers[1]['teacher/mIoU'] == teachers[0]['mIoU']
    assert '| kd | 1 |' in (tmp_path / 'results' / 'tiny.md').read_text()
    assert '| kd | 1 |' in output
    assert len(list((tmp_path / 'results').glob('*.png'))) == 3

    # Elsewhere the teacher's weights are missing: one more method has it trained again.
    shutil.rmtree(tmp_path / 'work')
    more = start(write_plan(tmp_path, shipped('kd', 'cwd')))
    _, errors = more.communicate(timeout=280)
    assert more.returncode == 0, errors[-3000:]
    assert lines_of(tmp_path)[:3] == lines
    assert [line['cell'] for line in lines_of(tmp_path)[3:]] == ['tiny/cwd/0']
    assert 'tiny/kd/0: finished earlier' in errors


@pytest.mark.parametrize('how', ['Ctrl-C', 'kill'])
def test_stopping_it_is_no_failure(how, start, tmp_path, monkeypatch):
    process = start(write_plan(tmp_path, {}))
    deadline = time.monotonic() + 240
    while not lines_of(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)  # The next cell runs.
    if how == 'Ctrl-C':  # reaches the trainings too
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert [line['status'] for line in lines_of(tmp_path)] == ['done']
    # The training was ended, not waited for, and is not left behind.
    assert not list((tmp_path / 'work' / 'tiny' / 'teacher').rglob('iter_2.pth'))
    monkeypatch.setattr(lock, 'PATIENCE', 0)
    with lock.locked(tmp_path / 'work'):
        pass


def test_a_failed_cell_is_reported_and_the_others_run(start, tmp_path):
    methods = shipped('dml', 'kd')
    wrong = {'model.methods.dml.tau': -1}
    methods['dml'] = dict(config=methods['dml'], cfg_options=wrong)
    process = start(write_plan(tmp_path, methods), '--jobs', '2')
    _, errors = process.communicate(timeout=280)
    assert process.returncode == 1
    assert 'failed: tiny/dml/0; their logs are named in' in errors
    by_cell = {line['cell']: line for line in lines_of(tmp_path)}
    assert by_cell['tiny/dml/0']['status'] == 'failed'
    assert "method 'dml' (DML): tau" in Path(by_cell['tiny/dml/0']['log']).read_text()
    assert by_cell['tiny/kd/0']['status'] == 'done'
    table = (tmp_path / 'results' / 'tiny.md').read_text()
    assert '| dml | 0 | not run |' in table
