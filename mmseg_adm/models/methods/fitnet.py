"""FitNet: Hints for Thin Deep Nets (arXiv 1412.6550)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import feature_error
from ..step import DistillationStep
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class FitNet(TeacherStudentMethod):
    """The student's features regress the teacher's (equation 3).

    ``weight * mean_valid 1/C sum_c (P(s)_c - sg t_c)^2``, at the student's size.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'features'``, ``'logits'`` or a module path. Where widths differ, the student's
            map goes through a 1x1 projection that learns with it.
        weight: Factor of the loss.
    """

    projects = True

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        loss = feature_error(student, teacher, step.valid(student), step.valid_count(student))
        return {'loss_hint': self.weight * loss}
