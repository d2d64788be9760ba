"""SwitOKD: Switchable Online Knowledge Distillation (arXiv 2209.04996)."""

from __future__ import annotations

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import distribution_distance, label_distance, switching_threshold
from ..step import DistillationStep
from .base import DistillationMethod, non_negative, temperature


@MODELS.register_module()
class SwitOKD(DistillationMethod):
    """The teacher waits whenever it is too far ahead of its student.

    The student always learns ``student_weight * tau^2 KL(teacher || student)``. The teacher
    learns ``teacher_weight * tau^2 KL(student || teacher)`` unless it is the better one, t < s,
    and the gap ``g = mean_valid |ps - pt|_1`` exceeds ``delta = s - exp(-t/(t+s)) t``, with s
    and t the mean distances of student and teacher to the labels: then it pauses, and its
    optimizer leaves it as it is (``MemberPauseHook``).

    Args:
        student: The member that always learns.
        teacher: The member that pauses; it trains, so it may not be frozen.
        tau: Temperature, also of gap and distances.
        student_weight: Factor of the student's loss (alpha in the paper).
        teacher_weight: Factor of the teacher's loss (beta in the paper).
    """

    frozen_advice = 'With a frozen teacher use mmseg_adm.KD'

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        tau: float = 1.0,
        student_weight: float = 1.0,
        teacher_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.tau = temperature('tau', tau)
        self.student_weight = non_negative('student_weight', student_weight)
        self.teacher_weight = non_negative('teacher_weight', teacher_weight)

    def reads(self) -> dict[str, tuple[str, ...]]:
        return {self.student: ('logits',), self.teacher: ('logits',)}

    def updates(self) -> tuple[str, ...]:
        return (self.student, self.teacher)

    def may_pause(self) -> tuple[str, ...]:
        return (self.teacher,)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        gap, threshold, teacher_leads = self._switch(step)
        paused = teacher_leads & (gap > threshold)
        self.paused = {self.teacher: paused}
        student, teacher = (step.read(name, 'logits') for name in (self.student, self.teacher))
        teacher_loss = step.imitate(teacher, student, self.tau)
        return {
            'loss_student': self.student_weight * step.imitate(student, teacher, self.tau),
            # What is learnt while paused counts for nothing, so it is not logged either.
            'loss_teacher': self.teacher_weight * teacher_loss * (~paused).float(),
            'gap': gap,
            'threshold': threshold,
            'paused': paused.float(),
        }

    def _switch(self, step: DistillationStep) -> tuple[Tensor, Tensor, Tensor]:
        """Gap, threshold and whether the teacher is the better one, alike on every rank."""
        student = step.read(self.student, 'logits')
        teacher = step.match_size(step.read(self.teacher, 'logits'), like=student)
        labels, count = step.labels_like(student), step.valid_count(student)
        gap = distribution_distance(student, teacher, self.tau, step.valid(student), count)
        student_distance, teacher_distance = (
            label_distance(logits, labels, self.tau, step.ignore_index, count)
            for logits in (student, teacher)
        )
        # With the divisor over ranks, the mean of what each rank has is that of the whole batch.
        gap, student_distance, teacher_distance = (
            step.reduce_mean(value) for value in (gap, student_distance, teacher_distance)
        )
        threshold = switching_threshold(student_distance, teacher_distance)
        return gap, threshold, teacher_distance < student_distance
