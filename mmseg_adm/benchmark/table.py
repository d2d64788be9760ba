"""The results as a Markdown table."""

from __future__ import annotations

from .settings import STUDENT, TEACHER
from .summary import Spread, Summary

INTERVAL = '95 % interval'
COLUMNS = ('', 'seeds', 'student mIoU', 'best', 'gain', INTERVAL, 'teacher mIoU', 'gain', INTERVAL,
           'agreement %', 's / iteration', 'MiB', 'extra parameters')  # fmt: skip


def markdown_table(summary: Summary, pair: str) -> str:
    """One row a method: means over seeds, +- standard deviations; gains +- standard errors.

    Beside a gain stands its interval of 95 % confidence by Student's t, over differences paired
    by seed; where it contains zero, no difference was found.
    """
    rows = [COLUMNS, ('---',) + ('---:',) * (len(COLUMNS) - 1)]
    rows += [_row(summary, pair, name) for name in summary.plan.names(pair)]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _row(summary: Summary, pair: str, name: str) -> tuple[str, ...]:
    ran = len(summary.seeds(pair, name))
    label = {STUDENT: 'student alone', TEACHER: 'teacher alone'}.get(name, name)
    if not ran:
        return (label, '0', *('not run' for _ in COLUMNS[2:]))
    agreement = Spread.of(list(summary.values(pair, name, 'agreement').values()))
    members = []
    for member in (STUDENT, TEACHER):
        last = summary.member(pair, name, member)
        gain = summary.gain(pair, name, member) if name != member else None
        best = [_text(summary.member(pair, name, member, best=True))] if member == STUDENT else []
        members += [_text(last), *best, _signed(gain), _interval(gain)]
    return (
        label,
        f'{ran}',
        *members,
        _text(agreement),
        _mean(summary.cost(pair, name, 'seconds per iteration'), '.2f'),
        _mean(summary.cost(pair, name, 'memory (MiB)'), '.0f'),
        _mean(summary.cost(pair, name, 'extra parameters'), '.0f'),
    )


def _text(spread: Spread | None) -> str:
    if spread is None:
        return ''
    return f'{spread.mean:.2f}' + (f' ± {spread.deviation:.2f}' if spread.count > 1 else '')


def _signed(spread: Spread | None) -> str:
    if spread is None:
        return ''
    return f'{spread.mean:+.2f}' + (f' ± {spread.error:.2f}' if spread.count > 1 else '')


def _interval(gain: Spread | None) -> str:
    if gain is None or gain.count == 1:
        return ''
    low, high = gain.interval
    verdict = ', no difference found' if low <= 0 <= high else ''
    return f'{low:+.2f} to {high:+.2f}{verdict}'


def _mean(spread: Spread | None, style: str) -> str:
    return '' if spread is None else format(spread.mean, style)
