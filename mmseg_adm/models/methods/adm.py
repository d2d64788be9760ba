"""ADM: Asymmetric Decision-Making in Online Knowledge Distillation (arXiv 2503.06685)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..adapters import Projection, match_width
from ..losses import (
    alignment_loss,
    centre_over_classes,
    consensus_weight,
    cosine_distance,
    divergence_weight,
    repulsion_loss,
    similarity_map,
)
from ..step import DistillationStep
from ..taps import channels_at
from .base import DistillationMethod, non_negative, one_of

CONSENSUS = ('alignment', 'modulation', None)
DIVERGENCE = ('weighting', 'modulation', 'repulsion', None)


@MODELS.register_module()
class ADM(DistillationMethod):
    """Consensus learning for the student, divergence learning for the teacher.

    The paper says in words who learns where: the student first where both networks agree, the
    teacher where they differ. Its equations are not public to us; the readings below are ours.
    With the similarity S_p at location p, c_p = max(S_p, 0) and d_p = 1 - c_p, no gradient
    through either:

    ==============  ==============  ==========================================================
    ``consensus``   ``alignment``   ``sum c_p (1 - cos(fs_p, sg ft_p)) / sum c_p``
    \\              ``modulation``  ``CE(classifier_s(c * fs), y)``
    ``divergence``  ``weighting``   ``sum d_p CE_p(zt, y) / sum d_p``
    \\              ``modulation``  ``CE(classifier_t(d * ft), y)``
    \\              ``repulsion``   ``sum d_p cos(sg fs_p, ft_p) / sum d_p``
    ==============  ==============  ==========================================================

    ``None`` leaves a side out; with a frozen teacher there is no divergence to learn.

    Args:
        student: The member that learns from consensus.
        teacher: The member that learns from divergence.
        consensus: The reading of consensus learning.
        divergence: The reading of divergence learning.
        at: Where the similarity is read: ``'features'``, what the classifiers read, through
            a 1x1 projection of the student's where widths differ; or ``'logits'``, centred
            over classes, without parameters.
        consensus_weight: Factor of the consensus term.
        divergence_weight: Factor of the divergence term.
    """

    frozen_advice = 'With a frozen teacher there is consensus alone: set divergence=None'

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        consensus: str | None = 'alignment',
        divergence: str | None = 'weighting',
        at: str = 'features',
        consensus_weight: float = 1.0,
        divergence_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.consensus = one_of('consensus', consensus, CONSENSUS)
        self.divergence = one_of('divergence', divergence, DIVERGENCE)
        self.at: str = one_of('at', at, ('features', 'logits'))
        self.consensus_weight = non_negative('consensus_weight', consensus_weight)
        self.divergence_weight = non_negative('divergence_weight', divergence_weight)
        if consensus is None and divergence is None:
            raise ValueError('consensus and divergence are both None: nothing would be learnt')
        self.projection: Projection | None = None

    def reads(self) -> dict[str, tuple[str, ...]]:
        student, teacher = {self.at}, {self.at}
        if self.consensus == 'modulation':
            student.add('features')
        if self.divergence == 'modulation':
            teacher.add('features')
        elif self.divergence == 'weighting':
            teacher.add('logits')
        return {self.student: tuple(sorted(student)), self.teacher: tuple(sorted(teacher))}

    def updates(self) -> tuple[str, ...]:
        student = (self.student,) if self.consensus else ()
        teacher = (self.teacher,) if self.divergence else ()
        return student + teacher

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        if self.at == 'features':
            widths = [channels_at(networks[name], 'features') for name in self._pair()]
            self.projection = match_width(*widths)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        student, teacher = self._compared(step)
        similarity = similarity_map(student, teacher.detach())
        valid = step.valid(similarity)
        losses = self._spread(similarity.detach(), valid)
        if self.projection is not None:
            losses['loss_projection'] = self._fit_projection(step, self.projection)
        if self.consensus:
            consensus = self._consensus(step, similarity, valid)
            losses['loss_consensus'] = self.consensus_weight * consensus
        if self.divergence:
            divergence = self._divergence(step, student, teacher, similarity, valid)
            losses['loss_divergence'] = self.divergence_weight * divergence
        return losses

    @torch.no_grad()
    def maps(self, step: DistillationStep) -> dict[str, Tensor]:
        """Similarity and both weights, each (B, h, w), for pictures."""
        similarity = similarity_map(*self._compared(step))
        return {
            'similarity': similarity,
            'consensus weight': consensus_weight(similarity),
            'divergence weight': divergence_weight(similarity),
        }

    def _pair(self) -> tuple[str, str]:
        return self.student, self.teacher

    def _compared(self, step: DistillationStep) -> tuple[Tensor, Tensor]:
        """Both maps in one space and at the teacher's size; the projection learns nothing here."""
        student, teacher = (step.read(name, self.at) for name in self._pair())
        if self.at == 'logits':
            student, teacher = centre_over_classes(student), centre_over_classes(teacher)
        elif self.projection is not None:
            student = self.projection.held_fixed(student)
        return step.match_size(student, like=teacher), teacher

    def _fit_projection(self, step: DistillationStep, projection: Projection) -> Tensor:
        """Its own unweighted term: where c starts at zero, L_co would never move it."""
        student, teacher = (step.read(name, 'features').detach() for name in self._pair())
        projected = step.match_size(projection(student), like=teacher)
        return cosine_distance(projected, teacher, step.valid(teacher), step.valid_count(teacher))

    def _consensus(self, step: DistillationStep, similarity: Tensor, valid: Tensor) -> Tensor:
        weight = consensus_weight(similarity)
        if self.consensus == 'modulation':
            return self._modulated(step, self.student, weight)
        weight = weight * valid
        return alignment_loss(similarity, weight, step.over_ranks(weight.sum()))

    def _divergence(
        self,
        step: DistillationStep,
        student: Tensor,
        teacher: Tensor,
        similarity: Tensor,
        valid: Tensor,
    ) -> Tensor:
        weight = divergence_weight(similarity)
        if self.divergence == 'modulation':
            return self._modulated(step, self.teacher, weight)
        if self.divergence == 'weighting':
            return step.cross_entropy(step.read(self.teacher, 'logits'), weight)
        # The same values once more, with gradient to the teacher in place of the student.
        similarity = similarity_map(student.detach(), teacher)
        weight = weight * valid
        return repulsion_loss(similarity, weight, step.over_ranks(weight.sum()))

    def _modulated(self, step: DistillationStep, member: str, weight: Tensor) -> Tensor:
        """Cross entropy of the member's classifier on its features scaled by ``weight``."""
        features = step.read(member, 'features')
        scale = step.match_size(weight[:, None], like=features).to(features.dtype)
        return step.cross_entropy(step.classify(member, scale * features))

    @staticmethod
    def _spread(similarity: Tensor, valid: Tensor) -> dict[str, Tensor]:
        """Mean and spread over positions: a map that is high everywhere chooses nothing."""
        count = valid.sum().clamp(min=1)
        mean = (similarity * valid).sum() / count
        variance = ((similarity - mean).square() * valid).sum() / count
        return {'similarity': mean, 'similarity_std': variance.sqrt()}
