"""What preflight found, as plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from mmseg_adm.mistakes import described

Result = TypeVar('Result')
Status = Literal['ok', 'warning', 'failed']


@dataclass(frozen=True)
class Member:
    """One network.

    Attributes:
        name: In the config.
        network: Backbone and decode head.
        role: ``'trained'``, ``'frozen'`` and in which dtype, or whose bridge it is.
        parameters: Of the network itself; a bridge does not own what it shares.
        flops: Multiply-adds of backbone and decode head on one image of the training crop;
            ``None`` if they could not be counted.
        preprocessing: What happens to its images.
    """

    name: str
    network: str
    role: str
    parameters: int
    flops: float | None
    preprocessing: str


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        name: In the config.
        kind: Its class.
        readings: The points that it reads and the maps C x h x w there, a line each.
        alignment: How maps are brought to one width and size, a line each.
        parameters: Of its own modules, projections included.
        settings: Weights of its terms and when it runs, a line each.
    """

    name: str
    kind: str
    readings: tuple[str, ...]
    alignment: tuple[str, ...]
    parameters: int
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Term:
    """One loss on a small batch, and who gets gradient from it.

    Attributes:
        owner: The method or the member that it belongs to.
        name: ``loss_<term>``.
        value: On that batch, with its weight.
        updates: Members, and the method's name for its own modules, with a gradient.
        silent: Those that it reaches with a gradient of zero.
    """

    owner: str
    name: str
    value: float
    updates: tuple[str, ...]
    silent: tuple[str, ...]

    @property
    def path(self) -> str:
        """As the log names it."""
        return f'{self.owner}.{self.name}'


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step takes of one device, and how they were found.

    Attributes:
        weights: Of all networks and methods, buffers and frozen members included.
        optimizer: What the optimizers keep between steps.
        exchange: Where gradients wait for those of the other processes.
        step: The most that a step has allocated at a time: gradients, activations, temporaries.
        basis: The step that was measured, or from which ones it was scaled.
    """

    weights: int
    optimizer: int
    exchange: int
    step: int
    basis: str

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.optimizer + self.exchange + self.step


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it went, and what to do."""

    name: str
    status: Status
    text: str


@dataclass
class Report:
    """All of it; what could not be found out is left empty. The crop is (H, W) in training."""

    crop: tuple[int, int] | None = None
    members: list[Member] = field(default_factory=list)
    methods: list[Method] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)
    memory: Memory | None = None
    checks: list[Check] = field(default_factory=list)

    @property
    def failed(self) -> list[Check]:
        """The checks that a run must not start with."""
        return [check for check in self.checks if check.status == 'failed']

    def add(self, name: str, status: Status, text: str) -> None:
        """Add a line."""
        self.checks.append(Check(name, status, text))

    def attempt(
        self, name: str, status: Status, function: Callable[..., Result], *arguments: Any
    ) -> Result | None:
        """The result of ``function``; if it fails, ``None`` and a line with ``status``."""
        try:
            return function(*arguments)
        except Exception as error:  # what a config, a file or a network can do is not foreseen
            self.add(name, status, described(error))
            return None

    def check(self, name: str, function: Callable[..., str], *arguments: Any) -> None:
        """A line with what ``function`` says, or with why it fails."""
        if text := self.attempt(name, 'failed', function, *arguments):
            self.add(name, 'ok', text)
