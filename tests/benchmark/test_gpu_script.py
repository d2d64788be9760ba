import json
import os
import subprocess
import sys

import pytest
from factory import ROOT
from plans import write_plan


@pytest.fixture
def run(city, tmp_path):
    """The script with small settings, its output and what it left."""

    def run_script(**settings):
        out = tmp_path / 'out'
        environment = dict(
            OUT=out,
            PYTHON=sys.executable,
            PLAN=write_plan(tmp_path, {}),
            JOBS=1,
            PYTEST='tests/test_gpu.py',
            SPEED='--pairs pspnet-r18 --classes 3 --methods dml --rounds 1',
            TIME_LIMIT=2400,
            SYNTHETIC_CITY_ROOT=city,
        )
        environment = os.environ | {k: str(v) for k, v in (environment | settings).items()}
        script = str(ROOT / 'benchmarks' / 'gpu.sh')
        done = subprocess.run(['bash', script], env=environment, capture_output=True, text=True)
        return done, out

    return run_script


@pytest.mark.slow
def test_each_part_leaves_its_results(run):
    done, out = run()
    assert done.returncode == 0, done.stdout + done.stderr
    parts = [line.split(':')[0] for line in done.stdout.splitlines()]
    assert parts == ['info', 'tests', 'speed_512x1024', 'speed_512x512', 'benchmark']
    assert all((out / f'{part}.txt').stat().st_size for part in parts)
    assert 'PyTorch' in (out / 'info.txt').read_text()
    assert 'Validation of both members' in (out / 'speed_512x1024.txt').read_text()
    lines = [json.loads(line) for line in (out / 'tiny.jsonl').read_text().splitlines()]
    assert {line['cell'] for line in lines} == {'tiny/student/0', 'tiny/teacher/0'}
    assert all(line['status'] == 'done' for line in lines)
    assert not list(out.rglob('*.pth'))


def test_what_fails_or_has_no_time_is_said(run):
    done, _ = run(PYTHON='false', TIME_LIMIT=11)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == 'failed: benchmark: exit status 1'
    done, _ = run(TIME_LIMIT=5)
    assert done.stdout.splitlines()[-1] == 'failed: benchmark: no time left'
