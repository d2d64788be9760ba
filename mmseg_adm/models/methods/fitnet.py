"""FitNet: Hints for Thin Deep Nets (arXiv 1412.6550)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..adapters import Projection, match_width
from ..losses import feature_error
from ..step import DistillationStep
from ..taps import channels_at
from .base import DistillationMethod, non_negative, point


@MODELS.register_module()
class FitNet(DistillationMethod):
    """The student's features regress the teacher's (equation 3).

    ``weight * mean_valid 1/C sum_c (P(s)_c - sg t_c)^2``, at the student's size.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'features'``, ``'logits'`` or a module path. Where widths differ, the student's
            map goes through a 1x1 projection that learns with it.
        weight: Factor of the loss.
    """

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
        widths = [channels_at(networks[name], self.at) for name in (self.student, self.teacher)]
        self.projection = match_width(*widths)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        student, teacher = (step.read(name, self.at) for name in (self.student, self.teacher))
        if self.projection is not None:
            student = self.projection(student)
        teacher = step.match_size(teacher, like=student)
        loss = feature_error(student, teacher, step.valid(student), step.valid_count(student))
        return {'loss_hint': self.weight * loss}
