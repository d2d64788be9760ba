"""DIST: Knowledge Distillation from A Stronger Teacher (arXiv 2205.10536)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import inter_class_correlation, intra_class_correlation
from ..step import DistillationStep
from .base import non_negative, temperature
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class DIST(TeacherStudentMethod):
    """The student's predictions correlate with the teacher's, instead of being equal.

    ``inter_weight * tau^2 (1 - rho over classes, mean over pixels) + intra_weight * tau^2
    (1 - rho over the pixels of the batch, mean over classes)``, rho Pearson's correlation of
    the class probabilities.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        tau: Temperature.
        inter_weight: Factor of the correlation over classes (beta in the paper).
        intra_weight: Factor of the correlation over pixels (gamma in the paper).
    """

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        tau: float = 1.0,
        inter_weight: float = 1.0,
        intra_weight: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, 'logits')
        self.tau = temperature('tau', tau)
        self.inter_weight = non_negative('inter_weight', inter_weight)
        self.intra_weight = non_negative('intra_weight', intra_weight)

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        valid, count = step.valid(student), step.valid_count(student)
        inter = inter_class_correlation(student, teacher, self.tau, valid, count)
        intra = intra_class_correlation(student, teacher, self.tau, valid, step.all_reduce)
        return {
            'loss_inter': self.inter_weight * inter,
            'loss_intra': self.intra_weight * intra,
        }
