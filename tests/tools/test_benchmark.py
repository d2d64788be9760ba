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
            env=os.environ | {
                'PYTHONPATH': str(ROOT),
                'SYNTHETIC_CITY_ROOT': str(city),
                # As from a package without history: this tree may have changes.
                'GIT_DIR': str(tmp_path / 'no repository'),
            },
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


# Long enough to know more than one class.
TAUGHT = {
    'train_cfg.max_iters': 80, 'train_cfg.val_interval': 40, 'param_scheduler.0.end': 80,
    'default_hooks.checkpoint.interval': 80,
}  # fmt: skip


def test_a_killed_benchmark_goes_on_where_it_was(start, tmp_path):
    plan = write_plan(tmp_path, shipped('kd'), teacher=TAUGHT)
    killed = start(plan)
    deadline = time.monotonic() + 240
    while not lines_of(tmp_path) and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (first,) = lines_of(tmp_path)
    assert (first['cell'], first['status']) == ('tiny/student/0', 'done')

    # Beside one that fails the others run.
    wrong = {'default_hooks.schedule': dict(schedules=dict(none=dict(start=1)))}
    failing = shipped('kd') | dict(dml=dict(config=shipped('dml')['dml'], cfg_options=wrong))
    plan = write_plan(tmp_path, failing, teacher=TAUGHT)
    again = start(plan, '--jobs', '2')
    output, errors = again.communicate(timeout=280)
    assert again.returncode == 1
    assert 'failed: tiny/dml/0; their logs are named in' in errors
    assert '| dml | 0 | not run |' in output
    (failed,) = (line for line in lines_of(tmp_path) if line['status'] == 'failed')
    assert "schedule for 'none'" in Path(failed['log']).read_text()
    lines = [line for line in lines_of(tmp_path) if line != failed]
    lines.sort(key=lambda line: ('student', 'teacher', 'kd').index(line['cell'].split('/')[1]))
    assert lines[0] == first
    raw = tmp_path / 'results' / 'tiny.jsonl'
    raw.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    plan = write_plan(tmp_path, shipped('kd'), teacher=TAUGHT)
    assert [line['cell'] for line in lines] == [f'tiny/{n}/0' for n in ('student', 'teacher', 'kd')]
    assert all(line['status'] == 'done' for line in lines)
    assert 'tiny/student/0: finished earlier' in errors
    assert [row['step'] for row in lines[2]['evaluations']] == [1, 2]
    assert {'student/mIoU', 'teacher/mIoU', 'student/IoU.road'} < set(lines[2]['evaluations'][-1])
    assert lines[2]['memory (MiB)'] > 100
    assert lines[2]['seconds per iteration'] > 0
    assert lines[1]['multiply-adds'] > 30 * lines[0]['multiply-adds'] > 0
    assert lines[2]['teacher'] == lines[1]['fingerprint']
    assert lines[0]['fingerprint']['step'] == 1
    # The frozen teacher is the one that was trained alone with this seed.
    teachers = [line['evaluations'][-1] for line in lines[1:]]
    assert teachers[1]['teacher/mIoU'] == teachers[0]['mIoU']
    assert '| kd | 1 |' in (tmp_path / 'results' / 'tiny.md').read_text()
    assert '| kd | 1 |' in output
    assert len(list((tmp_path / 'results').glob('*.png'))) == 3

    # Another code is told from today's by how it begins.
    earlier = [line | {'code': 'earlier'} for line in lines]
    earlier[0]['fingerprint'] = {'loss': 1.0, 'step': 1}
    raw.write_text(''.join(json.dumps(line) + '\n' for line in earlier))
    output, errors = start(plan, '--report').communicate(timeout=280)
    assert "- not checked against today's code (--check): tiny/student/0, tiny/teacher/0" in output
    check = start(plan, '--check', '--jobs', '2')
    output, errors = check.communicate(timeout=280)
    assert check.returncode == 0, errors[-3000:]
    found = {line['cell']: line['same'] for line in lines_of(tmp_path)[3:]}
    assert found == {'tiny/student/0': False, 'tiny/teacher/0': True, 'tiny/kd/0': True}
    assert "- left out, today's code trains otherwise: tiny/student/0" in output
    assert '| student alone | 0 | not run |' in output
    assert '| kd | 1 |' in output
    assert not list((tmp_path / 'work').glob('check_*'))
    raw.write_text(''.join(json.dumps(line) + '\n' for line in lines))

    # Elsewhere the teacher's weights are missing: one more method has it trained again.
    shutil.rmtree(tmp_path / 'work')
    more = start(write_plan(tmp_path, shipped('kd', 'cwd'), teacher=TAUGHT))
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
