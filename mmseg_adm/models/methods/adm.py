"""ADM: Asymmetric Decision-Making in Online Knowledge Distillation (arXiv 2503.06685)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..adapters import Projection, match_width
from ..losses import (
    center_over_classes,
    channel_wise_divergence,
    consensus_weight,
    cosine_distance,
    shuffled,
    similarity_map,
    weighted_mean,
)
from ..losses.similarity import CONTRASTS
from ..own_cross_entropy import OwnCrossEntropy
from ..step import DistillationStep
from ..taps import channels_at
from .base import DistillationMethod, flag, non_negative, one_of

CONSENSUS = ('alignment', 'modulation', 'imitation', 'channelwise', 'reweighting', None)
DIVERGENCE = ('weighting', 'modulation', 'repulsion', 'reweighting', None)
# Those that weigh the pixels of a member's own cross entropy.
OWN_CROSS_ENTROPY = ('modulation', 'weighting', 'reweighting')
CONTROLS = ('ones', 'shuffled', None)


class Comparison(NamedTuple):
    """The student beside another member, in one space and at the other's size.

    Attributes:
        student: (B, C, h, w), float32.
        other: The same shape.
        similarity: (B, h, w), with gradient to the student alone.
        valid: Boolean (B, h, w): the positions with a label.
        consensus: (B, h, w) in [0, 1], without gradient: how much a position counts where the
            student learns.
        divergence: Likewise where the teacher learns.
    """

    student: Tensor
    other: Tensor
    similarity: Tensor
    valid: Tensor
    consensus: Tensor
    divergence: Tensor


@MODELS.register_module()
class ADM(DistillationMethod):
    """Consensus learning for the student, divergence learning for the teacher.

    The paper says in words who learns where: the student first where both networks agree, the
    teacher where they differ. Its equations are not public to us; the readings below are ours,
    the default, modulation of the features on both sides, is the one nearest to its words.
    With the similarity S_p at location p, c_p = max(S_p, 0) and d_p = 1 - c_p, no gradient
    through either:

    ==============  ===============  =========================================================
    ``consensus``   ``alignment``    ``sum c_p (1 - cos(fs_p, sg ft_p)) / sum c_p``
    \\               ``modulation``   ``CE(classifier_s(c * fs), y)``
    \\               ``imitation``    ``sum c_p KL(sg zt_p || zs_p) / sum c_p``
    \\               ``channelwise``  ``1/K sum_k KL(pi_k(sg zt; c) || pi_k(zs; c))``
    \\               ``reweighting``  ``CE(zs, y; c) - CE(zs, y)``
    ``divergence``  ``weighting``    ``CE(zt, y; d)``
    \\               ``modulation``   ``CE(classifier_t(d * ft), y)``
    \\               ``repulsion``    ``sum d_p cos(sg fs_p, ft_p) / sum d_p``
    \\               ``reweighting``  ``CE(zt, y; d) - CE(zt, y)``
    ==============  ===============  =========================================================

    with ``CE(z, y; w) = sum w_p q_p CE_p / sum w_p q_p``, q_p what the member's own cross
    entropy gives to the pixel (the weight of its class; zero where its sampler leaves it out),
    and ``pi_k(z; w)_p = w_p exp(z_kp) / sum w exp(z_k)`` where channel k responds: with all
    weights one it is CWD (arXiv 2011.13256) from a teacher in training. ``reweighting`` adds no
    cross entropy: together with the member's own, of weight one, it is that one with weights
    ``1 - a + a w_p / mean(w)``, a being the term's weight (for that it is scaled by
    ``sum q_p`` over what the own one divides by); it can be negative. ``None`` leaves a side
    out; with a frozen teacher there is no divergence to learn. ``modulation``, ``weighting``
    and ``reweighting`` need a softmax cross entropy in the member's decode head.

    Args:
        student: The member that learns from consensus.
        teacher: The member that learns from divergence.
        consensus: The reading of consensus learning.
        divergence: The reading of divergence learning.
        at: Where the similarity is read: ``'features'``, what the classifiers read, through
            a 1x1 projection of the student's where widths differ; or ``'logits'``, centered
            over classes, without parameters.
        target: The member that the student learns from, where it is not the teacher itself but
            a moving average of it; the teacher learns where the student differs from itself.
        contrast: How the weights follow from the similarity:
            :func:`mmseg_adm.models.losses.consensus_weight`.
        class_weight: Whether its cross entropies weigh classes as the member's own does.
        control: For measurements only: ``'ones'`` sets all weights to one, ``'shuffled'`` gives
            them to other positions of the image.
        consensus_weight: Factor of the consensus term; by default 5, as CWD's, for
            ``'channelwise'`` and 1 for the others.
        divergence_weight: Factor of the divergence term.
    """

    frozen_advice = 'With a frozen teacher there is consensus alone: set divergence=None'

    def __init__(
        self,
        student: str = 'student',
        teacher: str = 'teacher',
        consensus: str | None = 'modulation',
        divergence: str | None = 'modulation',
        at: str = 'features',
        target: str | None = None,
        contrast: str | None = None,
        class_weight: bool = True,
        control: str | None = None,
        consensus_weight: float | None = None,
        divergence_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = teacher
        self.target = teacher if target is None else target
        if target is not None and consensus is None:
            raise ValueError(f'target={target!r} is whom the student learns from: set consensus')
        if target is not None and student in (teacher, target):
            raise ValueError(f"'{student}' cannot teach itself: name another teacher and target")
        self.consensus = one_of('consensus', consensus, CONSENSUS)
        self.divergence = one_of('divergence', divergence, DIVERGENCE)
        self.at: str = one_of('at', at, ('features', 'logits'))
        self.contrast = one_of('contrast', contrast, (*CONTRASTS, None))
        self.class_weight = flag('class_weight', class_weight)
        self.control = one_of('control', control, CONTROLS)
        if consensus_weight is None:
            consensus_weight = 5.0 if consensus == 'channelwise' else 1.0
        self.consensus_weight = non_negative('consensus_weight', consensus_weight)
        self.divergence_weight = non_negative('divergence_weight', divergence_weight)
        if consensus is None and divergence is None:
            raise ValueError('consensus and divergence are both None: nothing would be learnt')
        if not class_weight and 'reweighting' in (consensus, divergence):
            raise ValueError(
                "'reweighting' changes the weights of the member's own cross entropy, those of its "
                'classes included: leave class_weight=True'
            )
        for side in ('consensus', 'divergence'):
            if getattr(self, side) == 'reweighting' and getattr(self, f'{side}_weight') > 1:
                raise ValueError(
                    f"{side}='reweighting' is a share of the cross entropy: {side}_weight must be "
                    'at most 1'
                )
        self.projection: Projection | None = None
        self.cross_entropies: Any = nn.ModuleDict()  # of OwnCrossEntropy, by member

    def reads(self) -> dict[str, tuple[str, ...]]:
        points: dict[str, set[str]] = {name: {self.at} for name in self._compared_members()}
        if self.consensus == 'modulation':
            points[self.student].add('features')
        elif self.consensus in ('imitation', 'channelwise'):
            points[self.student].add('logits')
            points[self.target].add('logits')
        elif self.consensus == 'reweighting':
            points[self.student].add('logits')
        if self.divergence == 'modulation':
            points[self.teacher].add('features')
        elif self.divergence in ('weighting', 'reweighting'):
            points[self.teacher].add('logits')
        return {name: tuple(sorted(each)) for name, each in points.items()}

    def updates(self) -> tuple[str, ...]:
        student = (self.student,) if self.consensus else ()
        teacher = (self.teacher,) if self.divergence else ()
        return student + teacher

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        if self.at == 'features':
            width, *others = (
                channels_at(networks[name], 'features') for name in self._compared_members()
            )
            if len(set(others)) > 1:
                raise ValueError(
                    f"the features of '{self.target}' and '{self.teacher}' are {others} wide: with "
                    "at='features' the target must be as wide as the teacher"
                )
            self.projection = match_width(width, others[0])
        if self.consensus in OWN_CROSS_ENTROPY:
            self._set_cross_entropy('consensus', self.student, networks)
        if self.divergence in OWN_CROSS_ENTROPY:
            self._set_cross_entropy('divergence', self.teacher, networks)

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        compared = {name: self._compare(step, name) for name in self._compared_members()[1:]}
        losses = self._spread(next(iter(compared.values())))
        if self.projection is not None:
            losses['loss_projection'] = self._fit_projection(step, self.projection)
        if self.consensus:
            consensus = self._consensus(step, compared[self.target])
            losses['loss_consensus'] = self.consensus_weight * consensus
        if self.divergence:
            divergence = self._divergence(step, compared[self.teacher])
            losses['loss_divergence'] = self.divergence_weight * divergence
        return losses

    @torch.no_grad()
    def maps(self, step: DistillationStep) -> dict[str, Tensor]:
        """Similarity and both weights, each (B, h, w), for pictures."""
        compared = [self._compare(step, name) for name in self._compared_members()[1:]]
        return {
            'similarity': compared[0].similarity,
            'consensus weight': compared[0].consensus,
            'divergence weight': compared[-1].divergence,
        }

    def _set_cross_entropy(self, side: str, member: str, networks: Mapping[str, nn.Module]) -> None:
        try:
            own = OwnCrossEntropy(member, networks[member], self.class_weight)
        except ValueError as error:
            readings = CONSENSUS if side == 'consensus' else DIVERGENCE
            others = [reading for reading in readings if reading not in OWN_CROSS_ENTROPY]
            raise ValueError(
                f'{side}={getattr(self, side)!r}: {error}, or set {side} to one of '
                f'{", ".join(map(repr, others))}'
            ) from None
        self.cross_entropies[member] = own

    def _compared_members(self) -> tuple[str, ...]:
        """The student, and whom it is compared with: for consensus, for divergence."""
        target = (self.target,) if self.consensus else ()
        teacher = (self.teacher,) if self.divergence else ()
        return tuple(dict.fromkeys((self.student, *target, *teacher)))

    def _compare(self, step: DistillationStep, name: str) -> Comparison:
        """The projection learns nothing here."""
        student, other = (step.read(each, self.at) for each in (self.student, name))
        if self.at == 'logits':
            student, other = center_over_classes(student), center_over_classes(other)
        elif self.projection is not None:
            student = self.projection.held_fixed(student)
        student = step.match_size(student, like=other)
        similarity = similarity_map(student, other.detach())
        valid = step.valid(similarity)
        consensus, divergence = self._weights(similarity, valid)
        return Comparison(student, other, similarity, valid, consensus, divergence)

    def _weights(self, similarity: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        consensus = consensus_weight(similarity, self.contrast, valid)
        if self.control == 'ones':
            return torch.ones_like(consensus), torch.ones_like(consensus)
        if self.control == 'shuffled':
            consensus = shuffled(consensus, valid)
        return consensus, 1 - consensus

    def _fit_projection(self, step: DistillationStep, projection: Projection) -> Tensor:
        """Its own unweighted term: where c starts at zero, L_co would never move it."""
        student, other = (
            step.read(name, 'features').detach() for name in self._compared_members()[:2]
        )
        projected = step.match_size(projection(student), like=other)
        return cosine_distance(projected, other, step.valid(other), step.valid_count(other))

    def _consensus(self, step: DistillationStep, compared: Comparison) -> Tensor:
        if self.consensus == 'modulation':
            return self._modulated(step, self.student, compared.consensus)
        if self.consensus == 'reweighting':
            return self._reweighted(step, self.student, compared.consensus)
        if self.consensus == 'channelwise':
            return self._channelwise(step, compared.consensus)
        weight = compared.consensus * compared.valid
        if self.consensus == 'imitation':
            student, target = (step.read(name, 'logits') for name in (self.student, self.target))
            return step.imitate(student, target, weight=weight)
        return weighted_mean(1 - compared.similarity, weight, step.reduce_mean(weight.sum()))

    def _divergence(self, step: DistillationStep, compared: Comparison) -> Tensor:
        weight = compared.divergence
        if self.divergence == 'modulation':
            return self._modulated(step, self.teacher, weight)
        if self.divergence == 'reweighting':
            return self._reweighted(step, self.teacher, weight)
        if self.divergence == 'weighting':
            logits = step.read(self.teacher, 'logits')
            return self.cross_entropies[self.teacher].weighted(step, logits, weight)
        # The same values once more, with gradient to the teacher in place of the student.
        similarity = similarity_map(compared.student.detach(), compared.other)
        weight = weight * compared.valid
        return weighted_mean(similarity, weight, step.reduce_mean(weight.sum()))

    def _modulated(self, step: DistillationStep, member: str, weight: Tensor) -> Tensor:
        """Cross entropy of the member's classifier on its features scaled by ``weight``."""
        features = step.read(member, 'features')
        scale = step.match_size(weight[:, None], like=features).to(features.dtype)
        logits = step.classify(member, scale * features)
        return self.cross_entropies[member].weighted(step, logits)

    def _reweighted(self, step: DistillationStep, member: str, weight: Tensor) -> Tensor:
        logits = step.read(member, 'logits')
        return self.cross_entropies[member].reweighted(step, logits, weight)

    def _channelwise(self, step: DistillationStep, weight: Tensor) -> Tensor:
        student = step.read(self.student, 'logits')
        target = step.match_size(step.read(self.target, 'logits'), like=student)
        weight = step.match_size(weight[:, None], like=student)[:, 0]
        return channel_wise_divergence(student, target, valid=step.valid(student), weight=weight)

    @staticmethod
    def _spread(compared: Comparison) -> dict[str, Tensor]:
        """Mean and spread over positions: a map that is high everywhere chooses nothing."""
        similarity, valid = compared.similarity.detach(), compared.valid
        count = valid.sum().clamp(min=1)
        mean = (similarity * valid).sum() / count
        variance = ((similarity - mean).square() * valid).sum() / count
        return {'similarity': mean, 'similarity_std': variance.sqrt()}
