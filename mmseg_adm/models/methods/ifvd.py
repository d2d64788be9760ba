"""IFVD: Intra-class Feature Variation Distillation (ECCV 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..losses import intra_class_variation
from ..step import DistillationStep
from ..taps import decode_head_of
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class IFVD(TeacherStudentMethod):
    """Each position is as similar to the mean of its class as it is in the teacher.

    ``weight * mean_valid (M^s_p - sg M^t_p)^2``, M_p the cosine of the features at p and their
    mean over the labeled positions of the same class in the image.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'features'``, ``'logits'`` or a module path; the widths may differ.
        weight: Factor of the loss.
    """

    num_classes: int

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        at: str = 'features',
        weight: float = 50.0,
    ) -> None:
        super().__init__(student, teacher, at, weight)

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        head: Any = decode_head_of(networks[self.student])
        self.num_classes = head.num_classes

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        loss = intra_class_variation(
            student,
            teacher,
            step.labels_like(student),
            self.num_classes,
            step.ignore_index,
            step.valid_count(student),
        )
        return {'loss_variation': self.weight * loss}
