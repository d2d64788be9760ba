"""AT: Paying More Attention to Attention (arXiv 1612.03928)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import attention_transfer
from ..step import DistillationStep
from .base import DistillationMethod, non_negative, point


@MODELS.register_module()
class AT(DistillationMethod):
    """The student looks where the teacher looks (equation 2, activation-based).

    ``weight / B * sum_b |a(s_b) - sg a(t_b)|^2``, a the mean over channels of the squared map,
    flattened and of unit length. The published weights refer to the mean over h*w positions
    and to pairs of maps on several levels: list the method once per level.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'features'``, ``'logits'`` or a module path; the widths may differ.
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

    def reads(self) -> dict[str, tuple[str, ...]]:
        return {self.student: (self.at,), self.teacher: (self.at,)}

    def updates(self) -> tuple[str, ...]:
        return (self.student,)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        student = step.read(self.student, self.at)
        teacher = step.match_size(step.read(self.teacher, self.at), like=student)
        loss = attention_transfer(student, teacher, step.valid(student))
        return {'loss_attention': self.weight * loss}
