"""DML: Deep Mutual Learning (arXiv 1706.00384)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmseg_adm.registry import MODELS

from ..step import DistillationStep
from .base import DistillationMethod, non_negative, several, temperature


@MODELS.register_module()
class DML(DistillationMethod):
    """Every network matches every other one, at each labeled pixel (equations 4 to 6).

    For each of the M networks i:
    ``weight / (M-1) * sum_{j != i} tau^2 mean_valid KL(softmax(sg z_j / tau) ||
    softmax(z_i / tau))``, with the others resized to i.

    Args:
        members: Two or more members; all of them learn, so none may be frozen.
        tau: Temperature.
        weight: Factor of the loss.
    """

    frozen_advice = 'With a frozen teacher use mmseg_adm.KD'

    def __init__(
        self,
        members: Sequence[str] = ('student', 'teacher'),
        tau: float = 1.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.members = several('members', members)
        self.tau = temperature('tau', tau)
        self.weight = non_negative('weight', weight)

    def reads(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(self.members, ('logits',))

    def updates(self) -> tuple[str, ...]:
        return self.members

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        return {f'loss_{name}': self.weight * self._learn(step, name) for name in self.members}

    def _learn(self, step: DistillationStep, learner: str) -> Tensor:
        logits = step.read(learner, 'logits')
        peers = [step.read(name, 'logits') for name in self.members if name != learner]
        return torch.stack([step.imitate(logits, target, self.tau) for target in peers]).mean()
