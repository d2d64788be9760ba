"""Means and spreads over seeds, and differences paired by seed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from scipy import stats

from .plan import Plan
from .results import PROBE, Results
from .settings import STUDENT, TEACHER


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over ``count`` seeds."""

    mean: float
    deviation: float
    count: int

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / self.count**0.5

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of the mean with 95 % confidence, by Student's t; of one value unknown."""
        half = stats.t.ppf(0.975, self.count - 1) * self.error
        return self.mean - half, self.mean + half

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """``None`` of nothing."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else float('nan')
        return cls(statistics.fmean(values), deviation, len(values))


class Summary:
    """What the finished cells of a plan say.

    Args:
        plan: The plan.
        results: Its raw lines.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan = plan
        self.lines = results.finished(plan.cells)

    def seeds(self, pair: str, name: str) -> dict[int, dict]:
        """Lines of a row by seed."""
        cells = [cell for cell in self.plan.cells if (cell.pair, cell.name) == (pair, name)]
        return {cell.seed: self.lines[cell.key] for cell in cells if cell.key in self.lines}

    def values(self, pair: str, name: str, metric: str, best: bool = False) -> dict[int, float]:
        """A metric by seed: of the last evaluation, or the best of all."""
        found = {}
        for seed, line in self.seeds(pair, name).items():
            values = [row[metric] for row in line['evaluations'] if metric in row]
            if values:
                found[seed] = max(values) if best else values[-1]
        return found

    def metric(self, pair: str, name: str, member: str, what: str = 'mIoU') -> str:
        """The key of a member's metric in a row's evaluations."""
        if name in (STUDENT, TEACHER):
            return what if name == member else 'none'
        (line, *_) = self.seeds(pair, name).values() or [{'evaluations': []}]
        known = {key for row in line['evaluations'] for key in row}
        # FFSD deploys its leader.
        named = member if f'{member}/{what}' in known or member != STUDENT else 'leader'
        return f'{named}/{what}'

    def member(self, pair: str, name: str, member: str, best: bool = False) -> Spread | None:
        """mIoU of a member in a row."""
        metric = self.metric(pair, name, member)
        return Spread.of(list(self.values(pair, name, metric, best).values()))

    def gain(self, pair: str, name: str, member: str, over: str | None = None) -> Spread | None:
        """Difference of a member's last mIoU to another row's with the same seed.

        Args:
            pair: The pair of networks.
            name: The row.
            member: ``'student'`` or ``'teacher'``.
            over: The other row, by default the member trained alone.
        """
        over = over or member
        own = self.values(pair, name, self.metric(pair, name, member))
        other = self.values(pair, over, self.metric(pair, over, member))
        return Spread.of([own[seed] - other[seed] for seed in own if seed in other])

    def probes(self, pair: str, name: str) -> dict[str, list[tuple[int, float]]]:
        """What a row was probed for: by quantity (iteration, mean over seeds)."""
        found: dict[str, dict[int, list[float]]] = {}
        for line in self.seeds(pair, name).values():
            for probe in line.get('probes', []):
                for key, value in probe.items():
                    if key.startswith(PROBE):
                        steps = found.setdefault(key.removeprefix(PROBE), {})
                        steps.setdefault(probe['step'], []).append(value)
        return {
            key: [(step, statistics.fmean(steps[step])) for step in sorted(steps)]
            for key, steps in found.items()
        }

    def cost(self, pair: str, name: str, key: str) -> Spread | None:
        """A number of the raw lines."""
        return Spread.of([float(line[key]) for line in self.seeds(pair, name).values()])
