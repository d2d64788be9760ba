"""FFSD: feature fusion and self-distillation of an online ensemble (arXiv 2103.14473)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmseg_adm.registry import MODELS

from ..losses import attention_transfer, diversity, flattened, shifted_attention, unit_distance
from ..step import DistillationStep
from ..taps import map_shapes
from .base import DistillationMethod, non_negative, several, temperature

# Positions of each level's map in the paper's CIFAR setting: its weights refer to means over
# them. The features, then the stages from the deepest to the shallowest.
REFERENCE = (8 * 8, 8 * 8, 16 * 16, 32 * 32, 32 * 32)
RESNET_STAGES = ('backbone.layer4', 'backbone.layer3', 'backbone.layer2', 'backbone.layer1')


@MODELS.register_module()
class FFSD(DistillationMethod):
    """A leader learns from the fused features of its peers; the leader is deployed.

    All networks have one architecture and train. Peers learn KD from each other; every peer
    but the first is also kept different from the one before. A fusion module makes features
    and logits of all peers' features. The leader learns KD from the fused logits and attention
    from the fused features, on shallow stages through its self-distillation module, which
    turns features into maps of its own stages. Nothing flows from leader or fusion to the
    peers. All targets are detached; the divisors of attention are those of the paper's maps.

    Args:
        leader: The member that is deployed.
        members: Two or more peers.
        stages: Module paths of the stages, from the deepest to the shallowest, at most four.
        tau: Temperature of all KD.
        diversity_weight: lambda of the diversity between peers.
        fusion_weight: lambda of the leader's attention to the fusion.
        self_distillation_weight: lambda of what trains the self-distillation modules.
        norm_cfg: Normalization inside the method's own modules.
    """

    missing_advice = (
        'FFSD needs a leader and two or more peers of the same architecture: members=dict('
        'leader=..., peer1=..., peer2=...), and model.student=leader to deploy the leader'
    )

    def __init__(
        self,
        leader: str = 'leader',
        members: Sequence[str] = ('peer1', 'peer2'),
        stages: Sequence[str] = RESNET_STAGES,
        tau: float = 2.0,
        diversity_weight: float = 1e-5,
        fusion_weight: float = 10.0,
        self_distillation_weight: float = 1000.0,
        norm_cfg: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.leader = leader
        self.members = several('members', members)
        if leader in self.members:
            raise ValueError(f"leader='{leader}' is one of the members: name a network of its own")
        self.stages = several('stages', stages, at_least=1)
        if len(self.stages) >= len(REFERENCE):
            raise ValueError(f'stages must name 1 to {len(REFERENCE) - 1} modules, got {stages!r}')
        self.tau = temperature('tau', tau)
        self.diversity_weight = non_negative('diversity_weight', diversity_weight)
        self.fusion_weight = non_negative('fusion_weight', fusion_weight)
        self.self_distillation_weight = non_negative(
            'self_distillation_weight', self_distillation_weight
        )
        self.norm_cfg = dict(norm_cfg or dict(type='BN'))

    def reads(self) -> dict[str, tuple[str, ...]]:
        first, *others = self.members
        deep = ('features', 'logits')
        return {self.leader: (*deep, *self.stages), first: deep} | dict.fromkeys(
            others, (*deep, *self.stages)
        )

    def updates(self) -> tuple[str, ...]:
        return (self.leader, *self.members)

    def setup(self, networks: Mapping[str, nn.Module]) -> None:
        for name in self.members:
            _check_alike(networks, self.leader, name)
        points = ('features', 'logits', *self.stages)
        features, logits, *stages = map_shapes(networks[self.leader], points).values()
        heights = [height for _, height, _ in stages]
        if heights != sorted(heights):
            raise ValueError(
                f'stages must go from the deepest to the shallowest, but the heights of their maps '
                f'are {heights}'
            )
        self.fusion = FeatureFusion(len(self.members), features[0], logits[0], self.norm_cfg)
        # R: what brings the leader's features to the width of all peers' together.
        joined = len(self.members) * features[0]
        self.expansion = nn.Sequential(
            nn.Conv2d(features[0], features[0], 3, padding=1, groups=features[0], bias=False),
            nn.Conv2d(features[0], joined, 1),
        )
        self.self_distillation = nn.ModuleDict({
            name: SelfDistillation(features, stages, self.norm_cfg)
            for name in (*self.members[1:], self.leader)
        })  # fmt: skip

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        # Before anything runs these modules without gradient: autocast keeps the casts of their
        # weights until the step ends, and older versions of PyTorch then have no gradient for them.
        fitted = self._fit_self_distillation(step)
        peers = [step.read(name, 'features').detach() for name in self.members]
        fused, fused_logits = self.fusion(peers)
        losses = {'loss_fusion': self._fuse(step, fused_logits)}
        for name in self.members:
            others = [step.read(other, 'logits') for other in self.members if other != name]
            pulls = [step.imitate(step.read(name, 'logits'), other, self.tau) for other in others]
            losses[f'loss_{name}'] = torch.stack(pulls).mean()
        losses['loss_diversity'] = self.diversity_weight * self._diversify(step)
        losses['loss_self_distillation'] = self.self_distillation_weight * fitted
        leader_logits = step.read(self.leader, 'logits')
        losses[f'loss_{self.leader}'] = step.imitate(leader_logits, fused_logits, self.tau)
        losses['loss_attention'] = self.fusion_weight * self._attend(step, fused.detach(), peers)
        return losses

    def _fuse(self, step: DistillationStep, fused_logits: Tensor) -> Tensor:
        logits = [step.match_size(step.read(name, 'logits'), like=fused_logits)
                  for name in self.members]  # fmt: skip
        mean = torch.stack(logits).mean(dim=0)
        return step.cross_entropy(fused_logits) + step.imitate(fused_logits, mean, self.tau)

    def _diversify(self, step: DistillationStep) -> Tensor:
        """Every peer but the first looks where the one before does not, on all levels."""
        terms = []
        for before, name in zip(self.members, self.members[1:], strict=False):
            features = step.read(name, 'features')
            source = step.read(before, 'features')
            valid, count = step.valid(features), step.valid_count(features)
            target, shifted = shifted_attention(source, valid)
            terms.append(diversity(features, target, valid, count))
            with torch.no_grad():
                maps = self.self_distillation[name](shifted)
            terms += self._stage_attention(step, name, maps)
        return torch.stack(terms).sum()

    def _fit_self_distillation(self, step: DistillationStep) -> Tensor:
        """Each module makes its own network's stages out of its features; the network waits."""
        terms = []
        for name, module in self.self_distillation.items():
            made = module(step.read(name, 'features').detach())
            for level, stage, reference in zip(made, self.stages, REFERENCE[1:], strict=False):
                own = step.read(name, stage)
                level, valid = step.match_size(level, like=own), step.valid(own)
                whole = unit_distance(flattened(level, valid), flattened(own, valid))
                terms.append(whole / (reference * own.shape[1]))
                terms.append(attention_transfer(level, own, valid) / reference)
        return torch.stack(terms).sum()

    def _attend(self, step: DistillationStep, fused: Tensor, peers: Sequence[Tensor]) -> Tensor:
        """The leader looks where the fusion does, on all levels."""
        features = step.read(self.leader, 'features')
        valid = step.valid(features)
        expanded, joined = self.expansion(features), torch.cat(list(peers), dim=1)
        with torch.no_grad():
            maps = self.self_distillation[self.leader](fused)
        terms = [
            attention_transfer(features, fused, valid) / REFERENCE[0],
            attention_transfer(expanded, joined, valid) / REFERENCE[0],
            *self._stage_attention(step, self.leader, maps),
        ]
        return torch.stack(terms).sum()

    def _stage_attention(
        self, step: DistillationStep, name: str, targets: Sequence[Tensor]
    ) -> list[Tensor]:
        terms = []
        for target, stage, reference in zip(targets, self.stages, REFERENCE[1:], strict=False):
            own = step.read(name, stage)
            target = step.match_size(target, like=own)
            terms.append(attention_transfer(own, target, step.valid(own)) / reference)
        return terms


class FeatureFusion(nn.Module):
    """Features and logits out of several networks' features.

    Args:
        networks: How many.
        channels: Of the features of each.
        classes: Of the logits.
        norm_cfg: Normalization.
    """

    def __init__(self, networks: int, channels: int, classes: int, norm_cfg: Mapping) -> None:
        super().__init__()
        joined = networks * channels
        self.depthwise = nn.Sequential(
            nn.Conv2d(joined, joined, 3, padding=1, groups=joined, bias=False),
            *_norm_and_relu(joined, norm_cfg),
        )
        self.pointwise = nn.Sequential(
            nn.Conv2d(joined, channels, 1, bias=False), *_norm_and_relu(channels, norm_cfg)
        )
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse maps (B, C, h, w) into one (B, C, h, w) and logits (B, K, h, w)."""
        fused = self.pointwise(self.depthwise(torch.cat(list(features), dim=1)))
        return fused, self.classifier(fused)


class SelfDistillation(nn.Module):
    """A chain of transposed convolutions from a network's features back to its stages.

    Where a stage's map is larger than the one before it, the step up is a stride: the stages of
    dilated backbones follow each other without one.

    Args:
        features: (C, h, w) of the features.
        stages: (C, h, w) of the stages, from the deepest to the shallowest.
        norm_cfg: Normalization.
    """

    def __init__(
        self,
        features: tuple[int, int, int],
        stages: Sequence[tuple[int, int, int]],
        norm_cfg: Mapping,
    ) -> None:
        super().__init__()
        self.levels = nn.ModuleList()
        for (channels, height, _), (wanted, taller, _) in zip(
            [features, *stages], stages, strict=False
        ):
            stride = max(round(taller / height), 1)
            up = nn.ConvTranspose2d(
                channels, wanted, 3, stride, padding=1, output_padding=stride - 1, bias=False
            )
            self.levels.append(nn.Sequential(up, *_norm_and_relu(wanted, norm_cfg)))

    def forward(self, features: Tensor) -> list[Tensor]:
        """One map a stage, from the deepest to the shallowest."""
        maps = []
        for level in self.levels:
            features = level(features)
            maps.append(features)
        return maps


def _norm_and_relu(channels: int, norm_cfg: Mapping) -> tuple[nn.Module, nn.Module]:
    try:
        return build_norm_layer(dict(norm_cfg), channels)[1], nn.ReLU()
    except KeyError:
        raise ValueError(f'norm_cfg names no normalization layer: {norm_cfg!r}') from None


def _check_alike(networks: Mapping[str, nn.Module], first: str, second: str) -> None:
    shapes = [
        {key: tuple(value.shape) for key, value in networks[name].state_dict().items()}
        for name in (first, second)
    ]
    for key in sorted(shapes[0].keys() | shapes[1].keys()):
        if (found := shapes[1].get(key)) != (expected := shapes[0].get(key)):
            raise ValueError(
                f"the networks must be of one architecture, but at {key} '{second}' has {found} "
                f"and '{first}' {expected}"
            )
