"""IFVD: Intra-class Feature Variation Distillation (ECCV 2020)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import intra_class_variation
from ..step import DistillationStep
from .base import DistillationMethod, non_negative, point


@MODELS.register_module()
class IFVD(DistillationMethod):
    """Each position is as similar to the mean of its class as it is in the teacher.

    ``weight * mean_valid (M^s_p - sg M^t_p)^2``, M_p the cosine of the features at p and their
    mean over the labelled positions of the same class in the image.

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
        weight: float = 50.0,
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
        labels, count = step.labels_like(student), step.valid_count(student)
        loss = intra_class_variation(student, teacher, labels, step.ignore_index, count)
        return {'loss_variation': self.weight * loss}
