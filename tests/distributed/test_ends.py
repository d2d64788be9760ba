"""Trainings of one and two processes that are ended from outside, as a user or Slurm does it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factory import DEMO, ROOT

from mmseg_adm.checkpoint import newest_whole

pytestmark = pytest.mark.slow

OPTIONS = [
    'train_cfg.max_iters=100000', 'train_dataloader.batch_size=2',
    'default_hooks.checkpoint.interval=100000', 'default_hooks.logger.interval=1',
    'train_dataloader.num_workers=1',
    *(f'model.members.{member}.{option}' for member, width in (('student', 4), ('teacher', 8))
      for option in (f'backbone.base_channels={width}', f'backbone.stem_channels={width}',
                     f'decode_head.in_channels={8 * width}', f'decode_head.channels={2 * width}')),
]  # fmt: skip
LAUNCHER = ['-m', 'torch.distributed.run', '--standalone']
LAUNCHES = {
    1: ['-m', 'mmseg_adm'],
    **{each: [*LAUNCHER, f'--nproc_per_node={each}', '-m', 'mmseg_adm'] for each in (2, 3)},
}


@pytest.fixture
def start(city, tmp_path):
    """Start a training in a session of its own; returns it after its first iterations."""
    sessions = []

    def run(processes: int) -> subprocess.Popen:
        launcher = ['--launcher', 'pytorch'] if processes > 1 else []
        command = [
            sys.executable, *LAUNCHES[processes], 'train', DEMO, '--work-dir', 'run',
            '--skip-preflight', *launcher, '--cfg-options', *OPTIONS,
        ]  # fmt: skip
        environment = os.environ | {
            'PYTHONPATH': str(ROOT), 'SYNTHETIC_CITY_ROOT': str(city), 'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
        }  # fmt: skip
        with (tmp_path / 'output').open('w') as output:
            training = subprocess.Popen(
                list(map(str, command)), cwd=tmp_path, env=environment, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        sessions.append(training.pid)
        deadline = time.monotonic() + 240
        while '[     2/' not in said(tmp_path) and time.monotonic() < deadline:
            assert training.poll() is None, said(tmp_path)[-3000:]
            time.sleep(0.1)
        return training

    yield run
    for session in sessions:
        if is_alive(session):
            os.killpg(session, signal.SIGKILL)


def said(folder: Path) -> str:
    return (folder / 'output').read_text()


def is_alive(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def children_of(process: int) -> list[int]:
    return [int(each) for each in
            Path(f'/proc/{process}/task/{process}/children').read_text().split()]  # fmt: skip


def assert_all_ended(training: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while is_alive(training.pid) and time.monotonic() < deadline:
        training.poll()
        time.sleep(0.1)
    assert not is_alive(training.pid)


def job(training: subprocess.Popen) -> None:
    os.killpg(training.pid, signal.SIGTERM)


def launcher(training: subprocess.Popen) -> None:
    training.terminate()


def last_rank(training: subprocess.Popen) -> None:
    os.kill(children_of(training.pid)[-1], signal.SIGTERM)


@pytest.mark.parametrize(
    ('processes', 'whom'), [(1, job), (1, launcher), (2, job), (2, launcher), (2, last_rank)]
)
def test_after_sigterm_all_end_at_the_same_whole_checkpoint(processes, whom, start, tmp_path):
    training = start(processes)
    whom(training)
    assert_all_ended(training)
    if processes == 1:
        assert training.returncode == 143
    newest = newest_whole(tmp_path / 'run', 'iter_{}.pth')
    assert newest.path is not None, said(tmp_path)[-3000:]
    assert newest.skipped == {}
    (line,) = (line for line in said(tmp_path).splitlines() if 'mmseg-adm: terminated' in line)
    assert f'after iteration {newest.path.stem[5:]}; to go on from {newest.path.name}: ' in line


@pytest.mark.parametrize('killed', [0, 1])
def test_when_one_process_dies_every_other_one_says_so_and_ends(killed, start, tmp_path):
    training = start(3)
    os.kill(children_of(training.pid)[killed], signal.SIGKILL)
    assert_all_ended(training)
    assert training.returncode != 0
    text = 'another process of this training is gone, so it ends after iteration'
    lines = [line for line in said(tmp_path).splitlines() if text in line]
    for rank in {0, 1, 2} - {killed}:
        assert len([line for line in lines if f'rank {rank}: ' in line]) == 1, said(tmp_path)
        assert f'[rank{rank}]: Traceback' not in said(tmp_path)
    assert len(lines) == 2
    assert all('it has saved no checkpoint yet: launch it again' in line for line in lines)
