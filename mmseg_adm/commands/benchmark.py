"""Compare methods over several seeds: a table and pictures."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmseg_adm.paths import check_folder

from .flags import at_least_one, path
from .quiet import log_only

if TYPE_CHECKING:
    from mmseg_adm.benchmark import Plan, Results
    from mmseg_adm.benchmark.plan import Cell


# The beginning of a table's first line, by which it is known again.
HEADER = '<!-- mmseg-adm benchmark'


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The plan, and with what it is run."""
    parser.add_argument('plan', type=path, help='plan file path, such as benchmarks/camvid_full.py')
    parser.add_argument(
        '--work-dir', type=path, help='where trainings write; by default work_dirs/<plan>'
    )
    parser.add_argument(
        '--results',
        type=path,
        help='folder of raw lines, table and pictures; by default results/ beside the plan',
    )
    parser.add_argument('--jobs', type=at_least_one, default=1, help='trainings at a time')
    parser.add_argument('--gpus', type=at_least_one, default=1, help='GPUs of each training')
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        '--report', action='store_true', help='only write table and pictures of what has run'
    )
    group.add_argument(
        '--check',
        dest='only_checks',  # args.check is the command's own look at its flags
        action='store_true',
        help="only begin what other code has trained once more, to see if today's does the same",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse a plan that is not there, and folders that cannot be written into."""
    plan = Path(args.plan).resolve()
    if not plan.is_file():
        what = (
            f'{plan} is a folder: name a plan in it' if plan.is_dir() else f'plan not found: {plan}'
        )
        raise FileNotFoundError(what)
    check_folder('--results', _results_folder(args))
    if not args.report:
        check_folder('--work-dir', _work_dir(args))


def _results_folder(args: argparse.Namespace) -> Path:
    return Path(args.results or Path(args.plan).resolve().parent / 'results')


def _work_dir(args: argparse.Namespace) -> Path:
    return Path(args.work_dir or Path('work_dirs') / Path(args.plan).stem)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mmseg_adm.benchmark import Results, read_plan

    # MMEngine reports each variable of the environment that a config reads.
    log_only('WARNING')
    plan = read_plan(args.plan, args.gpus)
    folder = _results_folder(args)
    table = folder / f'{plan.name}.md'
    check_own_table(table)
    results = Results(folder / f'{plan.name}.jsonl')
    if not args.report:
        # As on Ctrl-C, the trainings end with it.
        before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
        try:
            train_cells(plan, results, _work_dir(args).resolve(), args.jobs, args.only_checks)
        except KeyboardInterrupt:
            raise KeyboardInterrupt('; the same command goes on with what is left') from None
        finally:
            signal.signal(signal.SIGTERM, before)
    print(write_report(args.plan, plan, results, table))
    failed = [cell.key for settings, cell in plan.trainings.items() if results.has_failed(settings)]
    if failed:
        print(f'failed: {", ".join(failed)}; their logs are named in {results.path}',
              file=sys.stderr)  # fmt: skip
    return 1 if failed else 0


def check_own_table(table: Path) -> None:
    """Refuse to replace what no benchmark has written.

    Raises:
        ValueError: With the path.
    """
    own = table.is_file() and table.read_text('utf-8', 'replace').startswith(HEADER)
    if table.exists() and not own:
        raise ValueError(
            f'{table} is there, and no benchmark has written it: choose another --results folder, '
            'or move it'
        )


def write_report(command: str, plan: Plan, results: Results, table: Path) -> str:
    """Write table and pictures of what counts, and return what to print."""
    from mmseg_adm.benchmark import Summary, draw_figures, markdown_table, remarks
    from mmseg_adm.writing import remove_leftovers, write_text

    summary = Summary(plan, results)
    remove_leftovers(table.parent)
    text = []
    for pair in plan.pairs:
        text += [f'### {pair.name}', markdown_table(summary, pair)]
        if lines := remarks(summary, pair):
            text.append('\n'.join(lines))
        draw_figures(summary, pair, table.parent, plan.name)
    if summary.evidence.device:
        text.append(f'Trained on {summary.evidence.device}.')
    write_text(table, '\n\n'.join([f'{HEADER} {command} -->', *text]) + '\n')
    return '\n\n'.join([*text, f'wrote {table}, pictures beside it'])


def train_cells(plan: Plan, results: Results, work_dir: Path, jobs: int, check: bool) -> None:
    """Train what is left, or check what is there, with a bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from mmseg_adm.benchmark import check_plan, run_plan
    from mmseg_adm.benchmark.provenance import changed_files

    changed = changed_files(plan.path.parent, (work_dir, results.path.parent))
    if changed and not check:
        text = 'in no commit, so what is trained now is left out of the table'
        print(f'{text}: {", ".join(changed)}', file=sys.stderr)

    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn(),
               TimeRemainingColumn())  # fmt: skip
    running: list[str] = []
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=36000) as progress:
        task = progress.add_task('cells', total=len(plan.trainings))

        def report(cell: Cell, state: str) -> None:
            if state == 'running':
                running.append(cell.key)
            else:
                if cell.key in running:
                    running.remove(cell.key)
                progress.console.print(f'{cell.key}: {state}')
                progress.advance(task)
            progress.update(task, description=', '.join(running) or 'cells')

        (check_plan if check else run_plan)(plan, results, work_dir, jobs, report)
