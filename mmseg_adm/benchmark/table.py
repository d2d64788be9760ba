"""The results as a Markdown table."""

from __future__ import annotations

from mmseg_adm.config import POINTS

from .evidence import NOT_RUN, UNCHECKED
from .plan import Cell, Pair, Row
from .settings import STUDENT, TEACHER, missing_lists
from .summary import Spread, Summary

INTERVAL = '95 % interval'


def markdown_table(summary: Summary, pair: Pair) -> str:
    """One row a method: means over seeds, +- standard deviations; gains and their intervals.

    Beside a gain stands its interval of 95 % confidence by Student's t, over differences paired
    by seed; where it contains zero, no difference was found. Costs are those of a whole row, its
    teacher's training included unless the pair's teacher is given.
    """
    columns = _columns(pair)
    rows = [columns, ('---',) + ('---:',) * (len(columns) - 1)]
    rows += [_row(summary, pair, row, len(columns)) for row in pair.rows]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def remarks(summary: Summary, pair: Pair) -> list[str]:
    """What the table leaves out, and what to know of what it shows, a line each."""
    evidence = summary.evidence
    found: dict[str, list[str]] = {}
    for row in pair.rows:
        for cell in (Cell(row, seed) for seed in row.seeds):
            if (objection := evidence.objection(cell)) and objection != NOT_RUN:
                found.setdefault(f'left out, {objection}', []).append(cell.key)
            elif not objection and evidence.is_unchecked(cell):
                found.setdefault(UNCHECKED, []).append(cell.key)
        points = [len(line['evaluations']) for line in summary.lines(row).values()]
        if points and min(points) < POINTS:
            found.setdefault(
                f'curves of fewer than {POINTS} points, lower train_cfg.val_interval', []
            ).append(row.key)
    missing = missing_lists(pair.row(STUDENT).resolved())
    if missing and not summary.lines(pair.row(STUDENT)):
        found['lines are known again by lists of images that are not here'] = missing
    lines = [f'- {text}: {", ".join(cells)}' for text, cells in found.items()]
    lines += [f'- left out, {count} lines of another device, {device}'
              for device, count in evidence.elsewhere.items()]  # fmt: skip
    return lines


def _columns(pair: Pair) -> tuple[str, ...]:
    budget = (f'{pair.budget} over it', INTERVAL) if pair.budget else ()
    return ('', 'seeds', 'student mIoU', 'best', 'gain', INTERVAL, *budget, 'teacher mIoU', 'gain',
            INTERVAL, 'agreement %', 'iterations', 'multiply-adds', 'seconds', 's / iteration',
            'MiB', 'extra parameters')  # fmt: skip


def _row(summary: Summary, pair: Pair, row: Row, width: int) -> tuple[str, ...]:
    ran = len(summary.lines(row))
    label = {STUDENT: 'student alone', TEACHER: 'teacher alone'}.get(row.name, row.name)
    if not ran:
        return (label, '0', *(NOT_RUN for _ in range(width - 2)))
    agreement = Spread.of(list(summary.values(row, 'agreement').values()))
    best = summary.member(row, STUDENT, best=True)
    lead: tuple[str, ...] = ()
    if pair.budget:
        lead = _gain(summary.gain(pair.row(pair.budget), STUDENT, over=row))
    frozen = TEACHER in row.frozen
    return (
        label,
        f'{ran}',
        _text(summary.member(row, STUDENT)),
        _text(best),
        *_gain(summary.gain(row, STUDENT)),
        *lead,
        _text(summary.member(row, TEACHER)),
        *(('frozen', '') if frozen else _gain(summary.gain(row, TEACHER))),
        _text(agreement),
        f'{row.iterations}',
        _mean(summary.multiply_adds(row), '.3g'),
        _mean(summary.seconds(row), '.0f'),
        _mean(summary.measured(row, 'seconds per iteration'), '.2f'),
        _mean(summary.measured(row, 'memory (MiB)'), '.0f'),
        _mean(summary.measured(row, 'extra parameters'), '.0f'),
    )


def _text(spread: Spread | None) -> str:
    if spread is None:
        return ''
    return f'{spread.mean:.2f}' + (f' ± {spread.deviation:.2f}' if spread.count > 1 else '')


def _gain(gain: Spread | None) -> tuple[str, str]:
    """A difference and its interval."""
    if gain is None:
        return '', ''
    if gain.count == 1:
        return f'{gain.mean:+.2f}', 'one seed'
    low, high = gain.interval
    verdict = ', no difference found' if low <= 0 <= high else ''
    return f'{gain.mean:+.2f}', f'{low:+.2f} to {high:+.2f}{verdict}'


def _mean(spread: Spread | None, style: str) -> str:
    return '' if spread is None else format(spread.mean, style)
