"""Training the cells of a plan, and comparing what today's code would train."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.config import Config

from mmseg_adm.config import check_config
from mmseg_adm.datasets.checks import check_data_paths
from mmseg_adm.writing import remove_leftovers

from .cost import multiply_adds
from .evidence import DIFFERS, Evidence
from .initial import initial_weights
from .launch import Launcher
from .lock import locked
from .plan import Cell, Plan
from .provenance import (
    changed_files,
    code_hash,
    commit_of,
    device_name,
    fingerprint_of,
    logged_rows,
    package_commit,
    same_fingerprint,
    versions,
)
from .results import CHECKED, DONE, FAILED, Results, collect

Report = Callable[[Cell, str], None]


def run_plan(
    plan: Plan,
    results: Results,
    work_dir: Path,
    jobs: int = 1,
    report: Report | None = None,
) -> None:
    """Train every cell that has no line that counts, and append a line for each.

    Before anything is trained, every network is built once. A training that was interrupted goes
    on from its last checkpoint. A cell that fails is reported as failed, with its log, and tried
    again the next time. A teacher that finished in another ``work_dir`` is trained again if cells
    are left that need its weights.

    Args:
        plan: The plan.
        results: Where lines are read from and appended to.
        work_dir: Where the trainings write.
        jobs: How many run at once, each in one thread; they share the GPUs if there are too few.
        report: Called with a cell and what happened to it.

    Raises:
        FileNotFoundError: If weights that a network starts from are missing.
        ValueError: If a network cannot be built, or there are GPUs, but fewer than one training
            needs.
        BlockingIOError: If another benchmark is at work in ``work_dir``.
    """
    report = report or (lambda cell, state: None)
    with locked(work_dir) as lock:
        remove_leftovers(work_dir / 'initial', '**/*')
        sitting = _Sitting(plan, results, Launcher(plan, work_dir, jobs, lock), report)
        sitting.prepare()
        _in_turn(plan.trainings.values(), plan, sitting.launcher, jobs, sitting.run)


def check_plan(
    plan: Plan,
    results: Results,
    work_dir: Path,
    jobs: int = 1,
    report: Report | None = None,
) -> None:
    """Begin the trainings of lines by other code once more, and append what they came to.

    Of each row the first seed is begun, of each code that trained it; in a folder that is not
    kept, until the first losses are logged.

    Arguments and errors are those of :func:`run_plan`.
    """
    report = report or (lambda cell, state: None)
    with locked(work_dir) as lock:
        launcher = Launcher(plan, work_dir, jobs, lock)
        check = _Check(plan, results, launcher, report)
        _in_turn(check.cells(), plan, launcher, jobs, check.run)


def _in_turn(
    cells: Iterable[Cell], plan: Plan, launcher: Launcher, jobs: int, run: Callable[[Cell], None]
) -> None:
    """Run cells in order, ``jobs`` at a time; one that waits for its teacher lets others pass."""
    waiting, running = list(cells), dict[Future, Cell]()
    pool = ThreadPoolExecutor(jobs)
    try:
        while waiting or running:
            busy = {cell.settings for cell in (*waiting, *running.values())}
            ready = [cell for cell in waiting
                     if (teacher := plan.teacher_of(cell)) is None
                     or teacher.settings not in busy]  # fmt: skip
            for cell in ready[: jobs - len(running)]:
                waiting.remove(cell)
                running[pool.submit(run, cell)] = cell
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                future.result()
    except BaseException:
        launcher.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def provenance(plan: Plan, cell: Cell, written: Iterable[Path]) -> dict:
    """What a line says whether or not the cell came to its end.

    Args:
        plan: The plan.
        cell: The cell.
        written: Folders that the benchmark itself writes into.
    """
    return {
        'cell': cell.key,
        'settings': cell.settings,
        'config': ' '.join(Path(word).name for word in cell.row.source),
        'seed': cell.seed,
        'commit': package_commit(),
        'plan commit': commit_of(plan.path.parent),
        'changes': changed_files(plan.path.parent, written),
        'code': code_hash(cell.row.imports),
        'device': device_name(),
        'processes': plan.processes,
        'versions': versions(),
    }


@dataclass(eq=False)
class _Sitting:
    plan: Plan
    results: Results
    launcher: Launcher
    report: Report

    def __post_init__(self) -> None:
        self.evidence = Evidence(self.plan, self.results, device_name())
        self.written = (self.launcher.work_dir, self.results.path.parent)
        changed = bool(changed_files(self.plan.path.parent, self.written))
        self.done = {
            settings
            for settings, cell in self.plan.trainings.items()
            if self.evidence.is_finished(cell, changed)
        }
        # Those whose line counts, but whose weights others still need.
        self.again = {
            settings for settings in self.done if self._is_missed(self.plan.trainings[settings])
        }
        self.done -= self.again
        self.costs: dict[str, float | None] = {}

    def prepare(self) -> None:
        """Build what is left to train once.

        Raises:
            FileNotFoundError: If data, or weights that a network starts from, are missing.
            ValueError: If a network cannot be built.
        """
        left = [cell for settings, cell in self.plan.trainings.items() if settings not in self.done]
        rows = {cell.row.settings: cell for cell in reversed(left)}.values()
        for cell in rows:
            try:
                check_config(cell.row.resolved())
                if cell.row.network:
                    initial_weights(self.plan, cell, self._initial(cell))
                self.costs[cell.row.settings] = multiply_adds(cell.row, self.plan.processes)
            except FileNotFoundError as error:
                raise FileNotFoundError(f"cell '{cell.row.key}': {error}") from error
            except Exception as error:  # whatever a network of somebody else's raises
                raise ValueError(f"cell '{cell.row.key}': {error}") from error
        for cell in rows:
            check_data_paths(cell.row.resolved())

    def run(self, cell: Cell) -> None:
        """Train a cell unless it has finished."""
        if cell.settings in self.done:
            self.report(cell, 'finished earlier')
            return
        self.report(cell, 'running')
        line = self._train(cell)
        if self.launcher.stopping.is_set():
            return
        if line['status'] == DONE:
            self.done.add(cell.settings)
        if not self._repeats(cell, line):
            with self.launcher.lock:
                self.results.add(line)
        self.report(cell, line['status'])

    def _repeats(self, cell: Cell, line: dict) -> bool:
        """Whether a training for the sake of its weights is that of the line that there is."""
        if cell.settings not in self.again or line['status'] != DONE:
            return cell.settings in self.again
        known = self.evidence.line(cell) or {}
        return same_fingerprint(line['fingerprint'], known['fingerprint'], line['device'])

    def _is_missed(self, teacher: Cell) -> bool:
        """Whether cells are left that need the weights of a teacher that are not here."""
        needed = any(self.plan.teacher_of(cell) == teacher
                     for settings, cell in self.plan.trainings.items()
                     if settings not in self.done)  # fmt: skip
        return needed and not self._weights_of(teacher).is_file()

    def _weights_of(self, teacher: Cell) -> Path:
        return self.launcher.weights_of(teacher, (self.evidence.line(teacher) or {}).get('code'))

    def _initial(self, cell: Cell) -> Path:
        """Other code may draw others."""
        return self.launcher.work_dir / 'initial' / self.evidence.code_of(cell)

    def _train(self, cell: Cell) -> dict:
        folder = self.launcher.folder_of(cell)
        folder.mkdir(parents=True, exist_ok=True)
        line = provenance(self.plan, cell, self.written)
        taught_by = None
        if teacher := self.plan.teacher_of(cell):
            if problem := self._problem_of(teacher):
                return line | {'status': FAILED, 'reason': problem}
            taught = self.evidence.line(teacher) or {}
            line['teacher'] = taught['fingerprint']
            taught_by = taught['code']
        log = folder / 'benchmark.log'
        failed = line | {'status': FAILED, 'log': str(log)}
        try:
            command = self.launcher.command(cell, folder, self._initial(cell), taught_by)
            exit_status, memory = self.launcher.execute(command, log)
            if exit_status != 0:
                return failed | {'exit status': exit_status}
            measured = collect(folder)
        except Exception as error:  # what a training leaves behind is not foreseen
            with log.open('a') as output:
                output.write(traceback.format_exc())
            return failed | {'reason': f'{type(error).__name__}: {error}'}
        return line | measured | {
            'status': DONE,
            'iterations': cell.row.iterations,
            'multiply-adds': self.costs[cell.row.settings],
            'memory (MiB)': memory,
            # Those beside it made it slower.
            'jobs': self.launcher.jobs,
        }  # fmt: skip

    def _problem_of(self, teacher: Cell) -> str:
        """Why nobody should learn from a teacher; preflight is not run, so its own line tells."""
        if teacher.settings not in self.done:
            return 'its teacher did not finish'
        line = self.evidence.line(teacher) or {}
        chance = 100 / _classes(teacher.row.resolved())
        scores = [row['mIoU'] for row in line['evaluations'] if 'mIoU' in row]
        if not scores or (score := scores[-1]) > chance:
            return ''
        return (
            f'its teacher knows nothing: mIoU {score:.1f}, and one class everywhere has up to '
            f'{chance:.1f}'
        )


@dataclass(eq=False)
class _Check:
    plan: Plan
    results: Results
    launcher: Launcher
    report: Report

    def __post_init__(self) -> None:
        self.evidence = Evidence(self.plan, self.results, device_name())
        self.written = (self.launcher.work_dir, self.results.path.parent)

    def cells(self) -> list[Cell]:
        """The first seed of each row and of each code that trained it, where today's is another."""
        found: dict[tuple[str, str], Cell] = {}
        for cell in self.plan.trainings.values():
            line = self.evidence.line(cell)
            if line is None or line['changes'] or line['code'] == self.evidence.code_of(cell):
                continue
            found.setdefault((cell.row.settings, line['code']), cell)
        return list(found.values())

    def run(self, cell: Cell) -> None:
        """Begin a cell's training once more and compare its first losses."""
        teacher = self.plan.teacher_of(cell)
        taught_by = (self.evidence.line(teacher) or {}).get('code') if teacher else None
        if teacher and not self.launcher.weights_of(teacher, taught_by).is_file():
            self.report(cell, "not checked: its teacher's weights are not in the work dir")
            return
        self.report(cell, 'running')
        found, printed = self._begin(cell, taught_by)
        if self.launcher.stopping.is_set():
            return
        line = provenance(self.plan, cell, self.written)
        if found is None:
            self.report(cell, f'not checked: its training logged nothing; it printed\n{printed}')
            return
        trained = self.evidence.line(cell) or {}
        same = same_fingerprint(found, trained['fingerprint'], self.evidence.device)
        compared = {'row': cell.row.settings, 'checked code': trained['code']}
        with self.launcher.lock:
            self.results.add(
                line | compared | {'status': CHECKED, 'fingerprint': found, 'same': same}
            )
        self.report(cell, "as today's code trains it" if same else DIFFERS)

    def _begin(self, cell: Cell, taught_by: str | None) -> tuple[dict | None, str]:
        """The first losses of a training, and the end of what it printed."""
        with TemporaryDirectory(
            prefix='check_', dir=self.launcher.work_dir, ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            log = folder / 'benchmark.log'

            def fingerprint() -> dict | None:
                return fingerprint_of(logged_rows(folder))

            # Drawn anew: today's code may draw others.
            command = self.launcher.command(cell, folder, folder / 'initial', taught_by)
            self.launcher.execute(command, log, enough=lambda: fingerprint() is not None)
            return fingerprint(), log.read_text()[-1000:]


def _classes(config: Config) -> int:
    head = config.model.decode_head
    return (head[-1] if isinstance(head, (list, tuple)) else head).num_classes
