"""Two agents of torchrun with a process each, as on two machines; other numbers of processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from factory import DEMO, ROOT
from test_dist_train import SMALL, free_port
from test_ends import assert_all_ended, children_of

from mmseg_adm.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

KEPT = [*SMALL, 'default_hooks.checkpoint.max_keep_ckpts=-1']
LONG = [*SMALL, 'train_cfg.max_iters=100000', 'train_cfg.val_interval=100000']


class Machines:
    """Launches trainings in a folder that all of them see."""

    def __init__(self, folder: Path, city: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            'PYTHON': sys.executable, 'SYNTHETIC_CITY_ROOT': str(city), 'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '', 'PORT': str(free_port()), 'PYTHONPATH': str(ROOT),
        }  # fmt: skip

    def train(self, machines: int, *flags: str, processes: int = 1, options=KEPT) -> list:
        """Start ``dist_train.sh`` on each of them; what it says is in ``said_<machine>``."""
        started = []
        for machine in range(machines):
            with (self.folder / f'said_{machine}').open('w') as said:
                started.append(subprocess.Popen(
                    ['bash', str(ROOT / 'tools/dist_train.sh'), str(DEMO), str(processes),
                     '--work-dir', 'run', '--skip-preflight', *flags, '--cfg-options', *options],
                    cwd=self.folder, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                    env=self.environment | {'NNODES': str(machines), 'NODE_RANK': str(machine)},
                ))  # fmt: skip
        return started

    def said(self, machine: int) -> str:
        """What was printed there."""
        return (self.folder / f'said_{machine}').read_text()

    def record(self, iteration: int) -> dict:
        """What a checkpoint says of its training."""
        return read_checkpoint(self.folder / 'run' / f'iter_{iteration}.pth')['meta']['mmseg_adm']

    def logged(self) -> list[dict]:
        """The lines of the training log, of all starts."""
        paths = sorted((self.folder / 'run').glob('*/vis_data/scalars.json'))
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def finish(trainings: list, machines: Machines) -> None:
    for machine, training in enumerate(trainings):
        training.wait(300)
        assert training.returncode == 0, machines.said(machine)[-3000:]


@pytest.fixture(scope='module')
def machines(tmp_path_factory, city):
    return Machines(tmp_path_factory.mktemp('machines'), city)


@pytest.fixture(scope='module')
def trained(machines):
    """Two steps on two machines, then two on one, then two on two processes of one machine."""
    finish(machines.train(2), machines)
    to_four = [*KEPT, 'train_cfg.max_iters=4']
    finish(machines.train(1, '--resume', options=to_four), machines)
    to_six = [*KEPT, 'train_cfg.max_iters=6']
    finish(machines.train(1, '--resume', processes=2, options=to_six), machines)
    return machines


def test_each_number_of_processes_goes_on_from_the_other(trained):
    assert [trained.record(each)['processes'] for each in (2, 4, 6)] == [2, 1, 2]
    steps = [line['step'] for line in trained.logged() if 'loss' in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert 'Resumed with 2 processes in place of 1' in trained.said(0)


def test_one_set_of_files_is_written_by_all_machines(trained):
    for iteration in (2, 4, 6):
        assert (trained.folder / 'run' / f'student_iter_{iteration}.pth').is_file()
    # A folder each start.
    assert len(list((trained.folder / 'run').glob('*/*.log'))) == 3


def test_the_schedule_and_the_optimizer_go_on(trained):
    rates = [line['student.lr'] for line in trained.logged() if 'loss' in line]
    assert rates == sorted(set(rates), reverse=True)
    states = [read_checkpoint(trained.folder / 'run' / f'iter_{each}.pth')['optimizer']['state']
              for each in (2, 4, 6)]  # fmt: skip
    assert [int(state[0]['step']) for state in states] == [2, 4, 6]


def test_a_killed_process_of_another_machine_ends_this_one(tmp_path, city):
    machines = Machines(tmp_path, city)
    trainings = machines.train(2, options=LONG)
    deadline = time.monotonic() + 240
    while '[     2/' not in machines.said(0) and time.monotonic() < deadline:
        assert all(each.poll() is None for each in trainings), machines.said(0)[-3000:]
        time.sleep(0.1)
    try:
        (agent,) = children_of(trainings[1].pid)
        (victim,) = children_of(agent)
        os.kill(victim, signal.SIGKILL)
        for training in trainings:
            assert_all_ended(training)
            assert training.returncode != 0
    finally:
        for training in trainings:
            if training.poll() is None:
                os.killpg(training.pid, signal.SIGKILL)
    (line,) = (line for line in machines.said(0).splitlines() if 'another process of' in line)
    assert 'rank 0: another process of this training is gone, so it ends after iteration' in line
    assert '--resume' in line
