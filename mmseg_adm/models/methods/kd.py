"""KD: Distilling the Knowledge in a Neural Network (arXiv 1503.02531), pixel by pixel."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..step import DistillationStep
from .base import temperature
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class KD(TeacherStudentMethod):
    """The student matches the teacher's class distribution at every labeled pixel.

    ``weight * tau^2 * mean_valid KL(softmax(sg zt / tau) || softmax(zs / tau))``.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        tau: Temperature.
        weight: Factor of the loss.
    """

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        tau: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, 'logits', weight)
        self.tau = temperature('tau', tau)

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        return {'loss_kl': self.weight * step.imitate(student, teacher, self.tau)}
