"""MGD: Masked Generative Distillation (arXiv 2205.01529)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..losses import feature_error
from ..step import DistillationStep
from ..taps import channels_at
from .base import non_negative
from .teacher_student import TeacherStudentMethod


@MODELS.register_module()
class MGD(TeacherStudentMethod):
    """From a part of the student's map a small generator makes the teacher's whole one.

    ``weight * mean_valid 1/C sum_c (G(P(s) * keep)_c - sg t_c)^2``: every location of the
    projected map is dropped with probability ``mask_ratio``, G is a 3x3 convolution, ReLU and
    another 3x3 convolution. The published weight 2e-5 refers to a sum over C*h*w: times C*h*w
    it is the one here (84 for 512 channels at 64x128).

    Args:
        student: The member that learns.
        teacher: The member that it learns from, frozen or in training.
        at: ``'features'``, ``'logits'`` or a module path. Where widths differ, the student's
            map goes through a 1x1 projection first. Projection and generator learn with it.
        mask_ratio: Probability that a location is dropped (lambda in the paper).
        weight: Factor of the loss.
    """

    projects = True
    generator: nn.Module

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        at: str = 'features',
        mask_ratio: float = 0.75,
        weight: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, at, weight)
        self.mask_ratio = non_negative('mask_ratio', mask_ratio)
        if mask_ratio >= 1:
            raise ValueError(f'mask_ratio must be below 1, or nothing would be left: {mask_ratio}')

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        super().setup(networks)
        width = channels_at(networks[self.teacher], self.at)
        self.generator = nn.Sequential(
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
        )

    def losses(self, step: DistillationStep, student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
        kept = torch.rand_like(student[:, :1], dtype=torch.float32) >= self.mask_ratio
        generated = self.generator(student * kept)
        valid, count = step.valid(generated), step.valid_count(generated)
        loss = feature_error(generated, teacher, valid, count)
        return {'loss_generation': self.weight * loss}
