"""Training the cells of a plan, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import torch

from mmseg_adm.writing import remove_leftovers

from .lock import locked
from .plan import Cell, Plan, initial_weights
from .results import Results, collect, provenance
from .settings import TEACHER

Report = Callable[[Cell, str], None]


def run_plan(
    plan: Plan,
    results: Results,
    work_dir: Path,
    jobs: int = 1,
    report: Report | None = None,
) -> None:
    """Train every cell that has no finished line, and append a line for each.

    A training that was interrupted goes on from its last checkpoint. A cell that fails is
    reported as failed, with its log, and tried again the next time. A teacher that finished
    in another ``work_dir`` is trained again if cells are left that need its weights.

    Args:
        plan: The plan.
        results: Where lines are read from and appended to.
        work_dir: Where the trainings write.
        jobs: How many run at once; they share the GPUs if there are too few, and the threads
            of PyTorch (all cores, or ``OMP_NUM_THREADS``) if there are none.
        report: Called with a cell and what happened to it.

    Raises:
        ValueError: If there are GPUs, but fewer than one training needs.
        BlockingIOError: If another benchmark is at work in ``work_dir``.
    """
    report = report or (lambda cell, state: None)
    with locked(work_dir) as lock:
        remove_leftovers(work_dir / 'initial')
        sitting = _Sitting(plan, results, work_dir, jobs, report, lock)
        # In order: a cell that waits for its teacher finds it among those that run already.
        pool = ThreadPoolExecutor(jobs)
        try:
            for future in [pool.submit(sitting.run, cell) for cell in plan.cells]:
                future.result()
        except BaseException:
            sitting.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


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


@dataclass(eq=False)
class _Sitting:
    plan: Plan
    results: Results
    work_dir: Path
    jobs: int
    report: Report
    inherited: int  # a file descriptor that the trainings keep open

    def __post_init__(self) -> None:
        self.processes = self.plan.processes
        self.threads = max(torch.get_num_threads() // (self.jobs * self.processes), 1)
        self.devices: Queue[str] = Queue()
        # Without GPUs the processes share the cores.
        available, none = visible_devices(), [''] * self.jobs
        for each in assign_devices(available, self.jobs, self.processes) if available else none:
            self.devices.put(each)
        self.trainings: set[subprocess.Popen] = set()
        self.done = set(self.results.finished(self.plan.cells))
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self.ended = {cell.key: threading.Event() for cell in self.plan.cells}

    def stop(self) -> None:
        """End the trainings; none of them has failed."""
        self.stopping.set()
        for process in tuple(self.trainings):
            process.terminate()

    def run(self, cell: Cell) -> None:
        """Train a cell unless it has finished, once its teacher has."""
        try:
            if cell.teachers:
                self.ended[self._teacher_of(cell).key].wait()
            if self.stopping.is_set():
                return
            again = cell.key in self.done
            if again and not self._is_missed(cell):
                self.report(cell, 'finished earlier')
                return
            self.done.discard(cell.key)
            self.report(cell, 'running')
            line = self._train(cell)
            if self.stopping.is_set():
                return
            with self.lock:
                if line['status'] == 'done':
                    self.done.add(cell.key)
                if not again:
                    self.results.add(line)
            self.report(cell, line['status'])
        finally:
            self.ended[cell.key].set()

    def _folder(self, cell: Cell) -> Path:
        # With other settings it is another training.
        return self.work_dir / cell.key / cell.settings

    def _teacher_of(self, cell: Cell) -> Cell:
        wanted = (cell.pair, TEACHER, cell.seed)
        cells = self.plan.cells
        return next(each for each in cells if (each.pair, each.name, each.seed) == wanted)

    def _is_missed(self, teacher: Cell) -> bool:
        """Whether cells are left that need the weights of a teacher that are not here."""
        left = (cell for cell in self.plan.cells if cell.teachers and cell.key not in self.done)
        needed = any(self._teacher_of(cell) == teacher for cell in left)
        return needed and not self._weights_of(teacher).is_file()

    def _weights_of(self, cell: Cell) -> Path:
        """What a cell's training saves at its end; one that was stopped has earlier ones."""
        return self._folder(cell) / f'iter_{cell.resolved().train_cfg.max_iters}.pth'

    def _train(self, cell: Cell) -> dict:
        folder = self._folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        line = provenance(cell)
        if cell.teachers and self._teacher_of(cell).key not in self.done:
            return line | {'status': 'failed', 'reason': 'its teacher did not finish'}
        log = folder / 'benchmark.log'
        failed = line | {'status': 'failed', 'log': str(log)}
        try:
            command = self._command(cell, folder)
        except Exception as error:  # a network may fail to be built
            with log.open('a') as output:
                output.write(traceback.format_exc())
            return failed | {'reason': _reason(error)}
        devices = self.devices.get()
        try:
            exit_status, costs = self._execute(command, log, devices)
        finally:
            self.devices.put(devices)
        if exit_status != 0:
            return failed | {'exit status': exit_status}
        try:
            measured = collect(folder)
        except Exception as error:  # what a training leaves behind is not foreseen
            return failed | {'reason': _reason(error)}
        return line | measured | {'status': 'done'} | costs

    def _command(self, cell: Cell, folder: Path) -> list[str]:
        """How a cell's training is started, its weights drawn."""
        source, options = list(cell.source), dict(cell.options)
        with self.lock:  # The weights of a pair are drawn once.
            options |= initial_weights(self.plan, cell, self.work_dir / 'initial')
        if cell.teachers:
            weights = self._weights_of(self._teacher_of(cell))
            options |= {f'model.members.{name}.checkpoint': str(weights) for name in cell.teachers}
            if len(source) > 1:
                source.append(f'--teacher-checkpoint={weights}')
        return [*self._launch(), *source,
                # The memory of a preflight would count as the training's.
                '--work-dir', str(folder), '--resume', '--skip-preflight', '--cfg-options',
                *(f'{key}={_written(value)}' for key, value in options.items())]  # fmt: skip

    def _execute(self, command: list[str], log: Path, devices: str) -> tuple[int, dict]:
        """Exit status and costs of a training."""
        # The rest is the user's, PYTHONPATH too: a training finds what this process finds.
        environment = {'OMP_NUM_THREADS': str(self.threads), 'CUDA_VISIBLE_DEVICES': devices}
        start = time.monotonic()
        with log.open('a') as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                pass_fds=(self.inherited,),
            )
            self.trainings.add(process)
            if self.stopping.is_set():
                process.terminate()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.trainings.discard(process)
        return process.returncode, {
            'memory (MiB)': round(usage.ru_maxrss / 1024),
            'seconds': round(time.monotonic() - start, 1),
            'threads': self.threads,
            'processes': self.processes,
        }

    def _launch(self) -> list[str]:
        train = ['-m', 'mmseg_adm', 'train']
        if self.processes == 1:
            return [sys.executable, *train]
        launcher = ['-m', 'torch.distributed.run', '--standalone',
                    f'--nproc_per_node={self.processes}']  # fmt: skip
        return [sys.executable, *launcher, *train, '--launcher=pytorch']


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {error}'


def _written(value: object) -> str:
    """As ``--cfg-options`` reads it: lists in brackets, no white space."""
    if isinstance(value, (list, tuple)):
        return '[' + ','.join(map(_written, value)) + ']'
    return str(value)
