"""CWD: Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import channel_wise_divergence
from ..step import DistillationStep
from .base import temperature
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class CWD(TeacherStudentMethod):
    """Each channel of the student responds where the teacher's does (equation 4).

    ``weight * tau^2 / (B*K) * sum KL(softmax_p(sg t / tau) || softmax_p(s / tau))``, softmax
    over the labeled positions p. Published settings: on logits tau 1, weight 5 for Cityscapes
    and 10 for ADE20K, tau 4, weight 3 (the authors' code); on features weight 50.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'logits'``, ``'features'`` or a module path. Where widths differ, the student's
            map goes through a 1x1 projection that learns with it.
        tau: Temperature.
        weight: Factor of the loss.
    """

    projects = True

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        at: str = 'logits',
        tau: float = 1.0,
        weight: float = 5.0,
    ) -> None:
        super().__init__(student, teacher, at, weight)
        self.tau = temperature('tau', tau)

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        loss = channel_wise_divergence(student, teacher, self.tau, step.valid(student))
        return {'loss_cwd': self.weight * loss}
