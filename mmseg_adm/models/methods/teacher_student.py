"""What the offline methods share: a student that learns from a teacher at one point of both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from ..adapters import Projection, match_width
from ..step import DistillationStep
from ..taps import channels_at
from .base import DistillationMethod, non_negative, point


class TeacherStudentMethod(DistillationMethod):
    """A method whose file holds one comparison of two maps: :meth:`losses`.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: The point of both members that is read: ``'features'``, ``'logits'`` or a module path.
        weight: Factor of the loss.
    """

    # Whether the student's map goes through a 1x1 projection, which learns with it, where the
    # widths differ.
    projects: bool = False

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        at: str = 'features',
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.at = point('at', at)
        self.weight = non_negative('weight', weight)
        self.projection: Projection | None = None

    def reads(self) -> dict[str, tuple[str, ...]]:
        return {self.student: (self.at,), self.teacher: (self.at,)}

    def updates(self) -> tuple[str, ...]:
        return (self.student,)

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        if self.projects:
            widths = [channels_at(networks[name], self.at) for name in (self.student, self.teacher)]
            self.projection = match_width(*widths)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        student = step.read(self.student, self.at)
        if self.projection is not None:
            student = self.projection(student)
        teacher = step.match_size(step.read(self.teacher, self.at).detach(), like=student)
        return self.losses(step, student, teacher)

    @abstractmethod
    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        """Compare two maps; what is returned is what ``forward`` returns.

        Args:
            step: Labels, valid positions and divisors of the batch.
            student: (B, C, h, w), with gradient.
            teacher: (B, C', h, w), float32, at the student's size, without gradient. C' is C for
                logits and for a method that projects.
        """
