"""Starting the training of a cell as a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from queue import Queue

import torch

from .initial import initial_weights
from .plan import Cell, Plan
from .provenance import code_hash

# How often a training that is to be stopped early is looked at, in seconds.
PACE = 0.5


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    count = torch.cuda.device_count()
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    # CUDA ignores what follows the first that is not there.
    return list(map(str, range(count))) if named is None else named.split(',')[:count]


def assign_devices(available: Sequence[str], jobs: int, processes: int) -> list[str]:
    """``CUDA_VISIBLE_DEVICES`` of each job; jobs share devices in turn if there are too few.

    Args:
        available: Names of devices.
        jobs: How many run at once.
        processes: Of each job, each with a device of its own.

    Raises:
        ValueError: If fewer devices than ``processes`` are available.
    """
    if len(available) < processes:
        raise ValueError(
            f'a training of {processes} processes needs as many GPUs, but {len(available)} '
            f'({", ".join(available)}) can be used: lower --gpus or look at CUDA_VISIBLE_DEVICES'
        )
    groups = [
        ','.join(available[first : first + processes])
        for first in range(0, len(available) - processes + 1, processes)
    ]
    return [groups[job % len(groups)] for job in range(jobs)]


class Launcher:
    """Starts trainings, and stops them all.

    Args:
        plan: The plan.
        work_dir: Where the trainings write.
        jobs: How many run at once.
        inherited: A file descriptor that they keep open.

    Raises:
        ValueError: If there are GPUs, but fewer than one training needs.
    """

    def __init__(self, plan: Plan, work_dir: Path, jobs: int, inherited: int) -> None:
        self.plan = plan
        self.work_dir = work_dir
        self.jobs = jobs
        self.inherited = inherited
        self.devices: Queue[str] = Queue()
        # Without GPUs the processes share the cores.
        available, none = visible_devices(), [''] * jobs
        for each in assign_devices(available, jobs, plan.processes) if available else none:
            self.devices.put(each)
        self.trainings: set[subprocess.Popen] = set()
        self.lock, self.stopping = threading.Lock(), threading.Event()

    def stop(self) -> None:
        """End the trainings; none of them has failed."""
        self.stopping.set()
        for process in tuple(self.trainings):
            _end(process)

    def folder_of(self, cell: Cell, code: str | None = None) -> Path:
        """Where a training writes: with other settings, or by other code, it is another one.

        Args:
            cell: The cell.
            code: The hash of what trains it, by default today's.
        """
        first = self.plan.trainings[cell.settings]
        code = code or code_hash(cell.row.imports)
        return self.work_dir / first.key / f'{first.settings}_{code}'

    def weights_of(self, cell: Cell, trained_by: str | None = None) -> Path:
        """What a cell's training saves at its end; one that was stopped has earlier ones.

        Args:
            cell: The cell.
            trained_by: The code of its line, whose weights will do if today's has trained none.
        """
        name = f'iter_{cell.row.iterations}.pth'
        own = self.folder_of(cell) / name
        earlier = self.folder_of(cell, trained_by) / name
        return own if own.is_file() or not earlier.is_file() else earlier

    def command(
        self, cell: Cell, folder: Path, initial: Path, taught_by: str | None = None
    ) -> list[str]:
        """How a cell's training is started.

        Args:
            cell: The cell.
            folder: Where it writes.
            initial: Where its initial weights are drawn into.
            taught_by: The code that its teacher's line belongs to.
        """
        source, options = list(cell.row.source), cell.options
        with self.lock:  # The weights of a pair are drawn once.
            options |= initial_weights(self.plan, cell, initial)
        if teacher := self.plan.teacher_of(cell):
            weights = self.weights_of(teacher, taught_by)
            options |= {
                f'model.members.{name}.checkpoint': str(weights) for name in cell.row.teachers
            }
            if len(source) > 1:
                source.append(f'--teacher-checkpoint={weights}')
        return [*self._launch(), *source,
                # The memory of a preflight would count as the training's.
                '--work-dir', str(folder), '--resume', '--skip-preflight', '--cfg-options',
                *_flags(options)]  # fmt: skip

    def execute(
        self, command: list[str], log: Path, enough: Callable[[], bool] | None = None
    ) -> tuple[int, int]:
        """Run a training on the next free devices; returns exit status and peak memory in MiB.

        Args:
            command: As :meth:`command` gives it.
            log: Takes what it prints.
            enough: Asked while it runs, whether it may be stopped.
        """
        devices = self.devices.get()
        try:
            with log.open('a') as output:
                process = subprocess.Popen(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | self._environment(devices),
                    pass_fds=(self.inherited,),
                )
            self.trainings.add(process)
            if self.stopping.is_set():
                _end(process)
            if enough is not None:
                threading.Thread(target=_stop_when, args=(process, enough), daemon=True).start()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.trainings.discard(process)
            return process.returncode, round(usage.ru_maxrss / 1024)
        finally:
            self.devices.put(devices)

    def _environment(self, devices: str) -> dict[str, str]:
        # The rest is the user's: a training finds what this process finds, and what lies beside
        # the plan.
        found = [os.environ.get('PYTHONPATH'), str(self.plan.path.parent)]
        return {
            # The digits of a sum depend on how many threads share it.
            'OMP_NUM_THREADS': '1',
            'MKL_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': devices,
            'PYTHONPATH': os.pathsep.join(filter(None, found)),
        }

    def _launch(self) -> list[str]:
        train = ['-m', 'mmseg_adm', 'train']
        if self.plan.processes == 1:
            return [sys.executable, *train]
        launcher = ['-m', 'torch.distributed.run', '--standalone',
                    f'--nproc_per_node={self.plan.processes}']  # fmt: skip
        return [sys.executable, *launcher, *train, '--launcher=pytorch']


def _stop_when(process: subprocess.Popen, enough: Callable[[], bool]) -> None:
    while process.returncode is None:
        if enough():
            _end(process)
            return
        time.sleep(PACE)


def _end(process: subprocess.Popen) -> None:
    # Not terminate(): it may take the exit status that another thread waits for.
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)


def _flags(options: Mapping[str, object], path: str = '') -> Iterator[str]:
    """As ``--cfg-options`` reads them: a dict by its dotted keys."""
    for key, value in options.items():
        if isinstance(value, Mapping) and value:
            yield from _flags(value, f'{path}{key}.')
        else:
            yield f'{path}{key}={_written(value)}'


def _written(value: object) -> str:
    """As ``--cfg-options`` reads it: lists in brackets, tuples in parentheses, no white space."""
    if isinstance(value, (list, tuple)):
        inner = ','.join(map(_written, value))
        return f'({inner})' if isinstance(value, tuple) else f'[{inner}]'
    return str(value)
