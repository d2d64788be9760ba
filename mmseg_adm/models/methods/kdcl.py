"""KDCL: Online Knowledge Distillation via Collaborative Learning (CVPR 2020)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mmseg_adm.registry import MODELS

from ..losses import mean_target, min_logit_target, naive_target
from ..step import DistillationStep
from .base import DistillationMethod, non_negative, one_of, several, temperature

ENSEMBLES = {'naive': naive_target, 'min_logit': min_logit_target, 'mean': mean_target}


@MODELS.register_module()
class KDCL(DistillationMethod):
    """All networks learn from one target that is made of all their logits.

    ``weight * tau^2 mean_valid KL(softmax(sg z / tau) || softmax(z_i / tau))`` for each
    network i, where z is the ensemble: ``'naive'``, per image the network with the lower cross
    entropy; ``'min_logit'``, per pixel and class the minimum of z_m - z_{m,y}; ``'mean'``, the
    mean of the logits (ours). It is made at the size of the first member's logits.

    Args:
        members: Two or more members; all of them learn, so none may be frozen.
        ensemble: How the target is made.
        tau: Temperature.
        weight: Factor of the loss.
    """

    frozen_advice = 'With a frozen teacher use mmseg_adm.KD'

    def __init__(
        self,
        members: Sequence[str] = ('student', 'teacher'),
        ensemble: str = 'naive',
        tau: float = 2.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.members = several('members', members)
        self.ensemble: str = one_of('ensemble', ensemble, tuple(ENSEMBLES))
        self.tau = temperature('tau', tau)
        self.weight = non_negative('weight', weight)

    def reads(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(self.members, ('logits',))

    def updates(self) -> tuple[str, ...]:
        return self.members

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        logits = {name: step.read(name, 'logits') for name in self.members}
        first = logits[self.members[0]]
        resized = [step.match_size(own.detach(), like=first) for own in logits.values()]
        target = ENSEMBLES[self.ensemble](resized, step.labels_like(first), step.ignore_index)
        return {
            f'loss_{name}': self.weight * step.imitate(own, target, self.tau)
            for name, own in logits.items()
        }
