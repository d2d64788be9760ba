"""Means and spreads over seeds, and differences paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from scipy import stats

from .evidence import Evidence
from .plan import Cell, Plan, Row
from .results import PROBE, Results
from .settings import TEACHER


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over ``count`` seeds."""

    mean: float
    deviation: float
    count: int

    @property
    def half_width(self) -> float:
        """Of the interval that holds the mean with 95 % confidence, by Student's t.

        Unknown (NaN) of one value.
        """
        return float(stats.t.ppf(0.975, self.count - 1)) * self.deviation / self.count**0.5

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of that interval."""
        return self.mean - self.half_width, self.mean + self.half_width

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """``None`` of nothing."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else float('nan')
        return cls(statistics.fmean(values), deviation, len(values))


class Summary:
    """What the lines that count say.

    Args:
        plan: The plan.
        results: Its raw lines.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.evidence = Evidence(plan, results)

    def lines(self, row: Row) -> dict[int, dict]:
        """Of a row, by seed."""
        counted = self.evidence.counted
        return {seed: counted[key] for seed in row.seeds if (key := Cell(row, seed).key) in counted}

    def values(self, row: Row, metric: str, best: bool = False) -> dict[int, float]:
        """A metric by seed: of the last evaluation, or the best of all."""
        found = {}
        for seed, line in self.lines(row).items():
            values = [each[metric] for each in line['evaluations'] if metric in each]
            if values:
                found[seed] = max(values) if best else values[-1]
        return found

    def metric(self, row: Row, member: str, what: str = 'mIoU') -> str:
        """The key of a member's metric in a row's evaluations."""
        if row.network:
            return what if row.network == member else 'none'
        known = {key for line in self.lines(row).values()
                 for each in line['evaluations'] for key in each}  # fmt: skip
        # FFSD deploys its leader.
        named = member if f'{member}/{what}' in known or member == TEACHER else 'leader'
        return f'{named}/{what}'

    def member(self, row: Row, member: str, best: bool = False) -> Spread | None:
        """mIoU of a member in a row."""
        return Spread.of(list(self.values(row, self.metric(row, member), best).values()))

    def gain(
        self, row: Row, member: str, over: Row | None = None, what: str = 'mIoU'
    ) -> Spread | None:
        """Difference of a member's last score to another row's with the same seed.

        Of a frozen member there is none: it is what it was.

        Args:
            row: The row.
            member: ``'student'`` or ``'teacher'``.
            over: The other row, by default the member trained alone.
            what: The metric.
        """
        over = over or self.plan.pair_of(row).row(member)
        if over is row or member in row.frozen:
            return None
        own = self.values(row, self.metric(row, member, what))
        other = self.values(over, self.metric(over, member, what))
        return Spread.of([own[seed] - other[seed] for seed in own if seed in other])

    def probes(self, row: Row) -> dict[str, list[tuple[int, float]]]:
        """What a row was probed for: by quantity (iteration, mean over seeds)."""
        found: dict[str, dict[int, list[float]]] = {}
        for line in self.lines(row).values():
            for probe in line.get('probes', []):
                for key, value in probe.items():
                    if key.startswith(PROBE):
                        steps = found.setdefault(key.removeprefix(PROBE), {})
                        steps.setdefault(probe['step'], []).append(value)
        return {
            key: [(step, statistics.fmean(steps[step])) for step in sorted(steps)]
            for key, steps in found.items()
        }

    def measured(self, row: Row, key: str) -> Spread | None:
        """A number of the raw lines."""
        return Spread.of([float(line[key]) for line in self.lines(row).values()])

    def multiply_adds(self, row: Row) -> Spread | None:
        """Of a row's training, and of its teacher's unless that is given."""
        return self._cost(row, lambda line: line['multiply-adds'])

    def seconds(self, row: Row) -> Spread | None:
        """Likewise, all iterations at their median time: without evaluations and pauses."""
        return self._cost(row, lambda line: line['iterations'] * line['seconds per iteration'])

    def _cost(self, row: Row, of: Callable[[dict], float | None]) -> Spread | None:
        totals = []
        for seed, line in self.lines(row).items():
            lines = [line]
            teacher = self.plan.teacher_of(Cell(row, seed))
            if teacher and not self.plan.pair_of(row).teacher_is_given:
                lines.append(self.evidence.line(teacher) or {})
            parts = [cost for each in lines if (cost := of(each)) is not None]
            if len(parts) == len(lines):
                totals.append(sum(parts))
        return Spread.of(totals)
