"""AT: Paying More Attention to Attention (arXiv 1612.03928)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import attention_transfer
from ..step import DistillationStep
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class AT(TeacherStudentMethod):
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

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        loss = attention_transfer(student, teacher, step.valid(student))
        return {'loss_attention': self.weight * loss}
