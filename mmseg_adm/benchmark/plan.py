"""What is compared: pairs of networks, rows of a table, seeds, and the trainings that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from mmengine.config import Config

from mmseg_adm.config import resolve_config

from .settings import TEACHER


@dataclass(frozen=True, eq=False)
class Row:
    """A network alone, or a method: trainings that differ in the seed alone.

    Attributes:
        pair: The networks' name in the plan.
        name: ``'student'`` and ``'teacher'`` are those networks alone, as the plan has them.
        network: Which of the two it is that trains alone; of methods empty.
        source: What trains, as arguments of the command ``train``: a config, or two and a method.
        options: Overrides, as ``--cfg-options`` takes them.
        seeds: Of initial weights, data order and all else.
        teachers: Members that start from the teacher of the same seed, trained alone.
        frozen: Members that only teach.
        settings: A hash of all settings but the seed.
        iterations: How long it trains.
        imports: Modules of one's own that its config imports.
        base: What ``options`` override.
    """

    pair: str
    name: str
    network: str
    source: tuple[str, ...]
    options: Mapping[str, object]
    seeds: tuple[int, ...]
    teachers: tuple[str, ...]
    frozen: tuple[str, ...]
    settings: str
    iterations: int
    imports: tuple[str, ...]
    base: Config = field(repr=False)

    @property
    def key(self) -> str:
        """What the row is called in messages."""
        return f'{self.pair}/{self.name}'

    def resolved(self) -> Config:
        """The config with the plan's overrides."""
        return resolve_config(self.base, self.options)


@dataclass(frozen=True)
class Cell:
    """One training: a row with one seed."""

    row: Row
    seed: int

    @property
    def key(self) -> str:
        """What the cell is called in results and folders."""
        return f'{self.row.key}/{self.seed}'

    @property
    def settings(self) -> str:
        """A hash of all settings; cells with the same are one training."""
        return sha256(f'{self.row.settings} {self.seed}'.encode()).hexdigest()[:12]

    @property
    def options(self) -> dict[str, object]:
        """Overrides, as ``--cfg-options`` takes them."""
        return {**self.row.options, 'randomness.seed': self.seed}


@dataclass(frozen=True)
class Pair:
    """Two networks and the rows that answer one question about them.

    Attributes:
        name: In the plan.
        rows: The networks alone, then the methods.
        budget: The row whose cost is the measure of the others, if there is one.
        teacher_is_given: Whether the teacher's own training is nobody's cost.
    """

    name: str
    rows: tuple[Row, ...]
    budget: str | None = None
    teacher_is_given: bool = False

    def row(self, name: str) -> Row:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True)
class Plan:
    """All pairs, and what it takes to fill their rows.

    Attributes:
        path: The plan file.
        pairs: In the plan's order.
        seeds: All of them.
        processes: Of each training, one a GPU; without GPUs they share the cores.
    """

    path: Path
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]
    processes: int = 1

    @property
    def name(self) -> str:
        """The plan file's."""
        return self.path.stem

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of all pairs."""
        return tuple(row for pair in self.pairs for row in pair.rows)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """By seed; what a cell needs comes before it."""
        return tuple(
            Cell(row, seed) for seed in self.seeds for row in self.rows if seed in row.seeds
        )

    @cached_property
    def trainings(self) -> dict[str, Cell]:
        """By settings, the first of all cells with the same ones; pairs may share rows."""
        found: dict[str, Cell] = {}
        for cell in self.cells:
            found.setdefault(cell.settings, cell)
        return found

    def pair_of(self, row: Row) -> Pair:
        """The pair that a row belongs to."""
        return next(pair for pair in self.pairs if pair.name == row.pair)

    def alone(self, cell: Cell, network: str) -> Cell:
        """The training of a pair's network alone with the seed of ``cell``."""
        alone = Cell(self.pair_of(cell.row).row(network), cell.seed)
        return self.trainings[alone.settings]

    def teacher_of(self, cell: Cell) -> Cell | None:
        """The training that a cell's teacher comes from, if it needs one."""
        return self.alone(cell, TEACHER) if cell.row.teachers else None
