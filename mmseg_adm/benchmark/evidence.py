"""Which lines count: those of a commit, of one device, of what today's code would train."""

from __future__ import annotations

from collections import Counter
from functools import cached_property

from .plan import Cell, Plan
from .provenance import code_hash, same_fingerprint
from .results import CHECKED, DONE, Results

NOT_RUN = 'not run'
CHANGED = 'trained from a changed tree'
DIFFERS = "today's code trains otherwise"
OTHER_TEACHER = 'its teacher has been trained otherwise since'
UNCHECKED = "not checked against today's code (--check)"


class Evidence:
    """What the lines of a plan are worth.

    Args:
        plan: The plan.
        results: Its raw lines.
        device: Whose lines are compared; by default that of most of the plan's lines.
    """

    def __init__(self, plan: Plan, results: Results, device: str | None = None) -> None:
        self.plan = plan
        self.results = results
        self.device = device or self._most_frequent_device()
        self._codes: dict[tuple[str, ...], str] = {}

    def line(self, cell: Cell) -> dict | None:
        """The cell's line, whether it counts or not."""
        return self.results.trained(cell.settings, self.device)

    def objection(self, cell: Cell) -> str:
        """Why a cell's line does not count; empty if it does."""
        line = self.line(cell)
        if line is None:
            return NOT_RUN
        if line['changes']:
            return CHANGED
        if self._verdict(cell, line) is False:
            return DIFFERS
        teacher = self.plan.teacher_of(cell)
        if teacher is None:
            return ''
        if found := self.objection(teacher):
            return f'its teacher: {found}'
        taught = self.line(teacher) or {}
        if not same_fingerprint(line['teacher'], taught['fingerprint'], self.device):
            return OTHER_TEACHER
        return ''

    def is_unchecked(self, cell: Cell) -> bool:
        """Whether another code trained the cell or its teacher, and nobody has compared them."""
        line, teacher = self.line(cell), self.plan.teacher_of(cell)
        if line is not None and self._verdict(cell, line) is None:
            return True
        return teacher is not None and self.is_unchecked(teacher)

    def is_finished(self, cell: Cell, tree_is_changed: bool) -> bool:
        """Whether it need not be trained: its line counts, or a new one would be as little worth.

        Args:
            cell: The cell.
            tree_is_changed: Whether what is trained now would count.
        """
        objection = self.objection(cell)
        if not tree_is_changed or not objection.endswith(CHANGED):
            return not objection
        return not self.is_unchecked(cell)

    @cached_property
    def counted(self) -> dict[str, dict]:
        """The lines that count, by the key of each cell."""
        return {cell.key: self.line(cell) or {} for cell in self.plan.cells
                if not self.objection(cell)}  # fmt: skip

    @cached_property
    def elsewhere(self) -> Counter[str]:
        """How many of the plan's lines other devices have."""
        return Counter({device: count for device, count in self._devices.items()
                        if device != self.device})  # fmt: skip

    def code_of(self, cell: Cell) -> str:
        """The hash of today's code as the cell's training runs it."""
        imports = cell.row.imports
        if imports not in self._codes:
            self._codes[imports] = code_hash(imports)
        return self._codes[imports]

    def _verdict(self, cell: Cell, line: dict) -> bool | None:
        """Whether today's code trains as the line's did; ``None`` if nobody has looked."""
        code = self.code_of(cell)
        if line['code'] == code:
            return True
        found = self.results.last(status=CHECKED, row=cell.row.settings, code=code,
                                  device=self.device, **{'checked code': line['code']})  # fmt: skip
        return found['same'] if found else None

    @cached_property
    def _devices(self) -> Counter[str]:
        wanted = {cell.settings for cell in self.plan.cells}
        return Counter(line['device'] for line in self.results.lines
                       if line['status'] == DONE and line['settings'] in wanted)  # fmt: skip

    def _most_frequent_device(self) -> str:
        return self._devices.most_common(1)[0][0] if self._devices else ''
