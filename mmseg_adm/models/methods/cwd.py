"""CWD: Channel-wise Knowledge Distillation for Dense Prediction (arXiv 2011.13256)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..adapters import Projection, match_width
from ..losses import channel_wise_divergence
from ..step import DistillationStep
from ..taps import channels_at
from .base import DistillationMethod, non_negative, point, positive


@MODELS.register_module()
class CWD(DistillationMethod):
    """Each channel of the student responds where the teacher's does (equation 4).

    ``weight * tau^2 / (B*K) * sum KL(softmax_p(sg t / tau) || softmax_p(s / tau))``, softmax
    over the labelled positions p. Published settings: on logits tau 1, weight 5 for Cityscapes
    and 10 for ADE20K, tau 4, weight 3 (the authors' code); on features weight 50.

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'logits'``, ``'features'`` or a module path. Where widths differ, the student's
            map goes through a 1x1 projection that learns with it.
        tau: Temperature.
        weight: Factor of the loss.
    """

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        at: str = 'logits',
        tau: float = 1.0,
        weight: float = 5.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.at = point('at', at)
        self.tau = positive('tau', tau)
        self.weight = non_negative('weight', weight)
        self.projection: Projection | None = None

    def reads(self) -> dict[str, tuple[str, ...]]:
        return {self.student: (self.at,), self.teacher: (self.at,)}

    def updates(self) -> tuple[str, ...]:
        return (self.student,)

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        widths = [channels_at(networks[name], self.at) for name in (self.student, self.teacher)]
        self.projection = match_width(*widths)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        student, teacher = (step.read(name, self.at) for name in (self.student, self.teacher))
        if self.projection is not None:
            student = self.projection(student)
        teacher = step.match_size(teacher, like=student)
        loss = channel_wise_divergence(student, teacher, self.tau, step.valid(student))
        return {'loss_cwd': self.weight * loss}
