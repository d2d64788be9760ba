"""SOKD: semi-online knowledge distillation (arXiv 2111.11747)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..step import DistillationStep
from .base import DistillationMethod, non_negative, several, temperature


@MODELS.register_module()
class SOKD(DistillationMethod):
    """A bridge between a frozen teacher and its student learns with both.

    The bridge is a member of its own: ``mmseg_adm.TeacherBridge``, the teacher with a last
    stage and a decode head that train. Beside the cross entropy of student and bridge, with
    KD at ``tau`` and every target detached:

    ``L_bridge = teacher_weight KD(bridge <- teacher) + student_weight KD(bridge <- student)``,
    ``L_student = weight KD(student <- bridge)``: the student never imitates the teacher itself.

    Args:
        student: The member that learns from the bridge.
        bridge: The member between the two.
        teacher: The frozen member that the bridge extends.
        tau: Temperature.
        weight: Factor of the student's loss.
        teacher_weight: Factor of what the bridge learns from the teacher.
        student_weight: Factor of what the bridge learns from the student.
    """

    missing_advice = (
        'SOKD needs a frozen teacher with a checkpoint, and a bridge: members=dict(teacher=dict('
        "frozen=True, checkpoint='...'), bridge=dict(type='mmseg_adm.TeacherBridge'))"
    )

    def __init__(
        self,
        student: str = 'student',
        bridge: str = 'bridge',
        teacher: str = 'teacher',
        tau: float = 4.0,
        weight: float = 1.0,
        teacher_weight: float = 1.0,
        student_weight: float = 1.0,
    ) -> None:
        super().__init__()
        members = several('student, bridge and teacher', (student, bridge, teacher), 3)
        self.student, self.bridge, self.teacher = members
        self.tau = temperature('tau', tau)
        self.weight = non_negative('weight', weight)
        self.teacher_weight = non_negative('teacher_weight', teacher_weight)
        self.student_weight = non_negative('student_weight', student_weight)

    def reads(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys((self.student, self.bridge, self.teacher), ('logits',))

    def updates(self) -> tuple[str, ...]:
        return (self.student, self.bridge)

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        if getattr(networks[self.bridge], 'bridge_of', None) != self.teacher:
            raise ValueError(
                f"bridge='{self.bridge}' is no bridge on '{self.teacher}': model.members."
                f"{self.bridge}=dict(type='mmseg_adm.TeacherBridge', teacher='{self.teacher}')"
            )

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        student, bridge, teacher = (
            step.read(name, 'logits') for name in (self.student, self.bridge, self.teacher)
        )
        return {
            'loss_student': self.weight * step.imitate(student, bridge, self.tau),
            'loss_bridge_teacher': self.teacher_weight * step.imitate(bridge, teacher, self.tau),
            'loss_bridge_student': self.student_weight * step.imitate(bridge, student, self.tau),
        }
