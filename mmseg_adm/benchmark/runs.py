"""Training the cells of a plan, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .plan import TEACHER, Cell, Plan, initial_weights
from .results import ROOT, Results, collect, iteration_of, provenance

Report = Callable[[Cell, str], None]


def run_plan(
    plan: Plan, results: Results, work_dir: Path, jobs: int = 1, report: Report | None = None
) -> None:
    """Train every cell that has no finished line, and append a line for each.

    A training that was interrupted goes on from its last checkpoint. A cell that fails is
    reported as failed, with its log, and tried again the next time.

    Args:
        plan: The plan.
        results: Where lines are read from and appended to.
        work_dir: Where the trainings write.
        jobs: How many run at once; without a GPU they share the cores.
        report: Called with a cell and what happened to it.
    """
    report = report or (lambda cell, state: None)
    done = results.finished(plan.cells)
    lock, stopping = threading.Lock(), threading.Event()
    ended = {cell.key: threading.Event() for cell in plan.cells}

    def run(cell: Cell) -> None:
        try:
            if cell.key in done:
                report(cell, 'finished earlier')
                return
            teacher = f'{cell.pair}/{TEACHER}/{cell.seed}'
            if cell.needs_teacher:
                ended[teacher].wait()
            if stopping.is_set():
                return
            report(cell, 'running')
            line = _train(plan, cell, work_dir, jobs, lock)
            if stopping.is_set():  # Ctrl-C reached the training too: it did not fail.
                return
            with lock:
                results.add(line)
            report(cell, line['status'])
        finally:
            ended[cell.key].set()

    # In order: a cell that waits for its teacher finds it among those that run already.
    pool = ThreadPoolExecutor(jobs)
    try:
        for future in [pool.submit(run, cell) for cell in plan.cells]:
            future.result()
    except BaseException:
        stopping.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _train(plan: Plan, cell: Cell, work_dir: Path, jobs: int, lock: threading.Lock) -> dict:
    folder = work_dir / cell.key
    folder.mkdir(parents=True, exist_ok=True)
    line = provenance(cell)
    with lock:  # The weights of a pair are drawn once.
        options = dict(cell.options) | initial_weights(plan, cell, work_dir / 'initial')
    if cell.needs_teacher:
        teachers = sorted((work_dir / cell.pair / TEACHER / str(cell.seed)).glob('iter_*.pth'))
        if not teachers:
            return line | {'status': 'failed', 'reason': 'its teacher did not come to its end'}
        options |= {
            f'model.members.{name}.checkpoint': str(max(teachers, key=iteration_of))
            for name, member in cell.resolved().model.members.items()
            if member.get('frozen')
        }
    log = folder / 'benchmark.log'
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(cell.config),
               '--work-dir', str(folder), '--resume', '--cfg-options',
               *(f'{key}={_written(value)}' for key, value in options.items())]  # fmt: skip
    threads = max((os.cpu_count() or 1) // jobs, 1)
    start = time.monotonic()
    with log.open('a') as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {'OMP_NUM_THREADS': str(threads), 'PYTHONPATH': str(ROOT)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        return line | {'status': 'failed', 'exit status': process.returncode, 'log': str(log)}
    return line | collect(folder) | {
        'status': 'done',
        'memory (MiB)': round(usage.ru_maxrss / 1024),
        'seconds': round(time.monotonic() - start, 1),
        'threads': threads,
    }  # fmt: skip


def _written(value: object) -> str:
    """As ``--cfg-options`` reads it: lists in brackets, no white space."""
    if isinstance(value, (list, tuple)):
        return '[' + ','.join(map(_written, value)) + ']'
    return str(value)
