"""What one training step offers to the methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from .losses import pixel_kl, weighted_cross_entropy
from .losses.reduction import resize
from .taps import FeatureTap


class DistillationStep:
    """Captured maps, labels and divisors of one batch.

    Args:
        taps: By member and point; they hold what this batch produced.
        labels: (B, H, W), int64.
        ignore_index: Labels that do not count; ``None`` where all do.
    """

    def __init__(
        self,
        taps: Mapping[str, Mapping[str, FeatureTap]],
        labels: Tensor,
        ignore_index: int | None,
    ) -> None:
        self._taps = taps
        self.labels = labels
        # mmseg's heads with a masked binary cross entropy have None. No label is negative.
        self.ignore_index = -1 if ignore_index is None else ignore_index
        self._labels: dict[tuple[int, int], Tensor] = {}
        self._valid_count: dict[tuple[int, int], Tensor] = {}

    def read(self, member: str, point: str) -> Tensor:
        """The map (B, C, h, w) that ``member`` produced at ``point``.

        Raises:
            RuntimeError: If nothing was captured.
        """
        return self._taps[member][point].value

    def check_gradient(self, reads: Mapping[str, Sequence[str]], updates: Sequence[str]) -> None:
        """Check that what a method reads of the members that it trains can train them.

        Raises:
            RuntimeError: If a map carries no gradient.
        """
        for member in updates if torch.is_grad_enabled() else ():
            for point in reads.get(member, ()):
                if not self.read(member, point).requires_grad:
                    raise RuntimeError(
                        f"'{point}' of member '{member}' carries no gradient, although the "
                        'method trains the member: is its block checkpointed (with_cp, '
                        'activation_checkpointing), or every parameter before it frozen?'
                    )

    def classify(self, member: str, features: Tensor) -> Tensor:
        """Logits of the member's own classifier, without its dropout, on other features."""
        # forward() instead of a call: the taps' hooks would take this for the member's own pass.
        return self._taps[member]['logits'].classifier.forward(features)

    def sample(self, member: str, logits: Tensor, labels: Tensor) -> Tensor | float:
        """(B, H, W), 0 where the sampler of the member's own head leaves a pixel out, else 1.

        By the sampler's own rule, which asks for all of the logits at full size.

        Args:
            member: Its name.
            logits: (B, K, h, w).
            labels: (B, H, W).
        """
        head: Any = self._taps[member]['logits'].head
        if head.sampler is None:
            return 1.0
        with torch.no_grad():
            # In their own precision, in which the head's loss has chosen too.
            resized = resize(logits.detach(), labels.shape[-2:], head.align_corners)
            return head.sampler.sample(resized, labels[:, None])

    def labels_like(self, maps: Tensor) -> Tensor:
        """Labels (B, h, w), int64: those at the centers of the cells of ``maps``."""
        size = (maps.shape[-2], maps.shape[-1])
        if size not in self._labels:
            labels = self.labels[:, None].float()  # exact for whatever a label map can hold
            self._labels[size] = F.interpolate(labels, size=size, mode='nearest-exact')[:, 0].long()
        return self._labels[size]

    def valid(self, maps: Tensor) -> Tensor:
        """Boolean (B, h, w): where the labels at the centers of the cells of ``maps`` count."""
        return self.labels_like(maps) != self.ignore_index

    def valid_count(self, maps: Tensor) -> Tensor:
        """The number of valid positions as a divisor: see :meth:`reduce_mean`."""
        size = (maps.shape[-2], maps.shape[-1])
        if size not in self._valid_count:
            self._valid_count[size] = self.reduce_mean(self.valid(maps).sum().float())
        return self._valid_count[size]

    @property
    def distributed(self) -> bool:
        """Whether other processes hold a part of the batch."""
        return get_world_size() > 1

    @staticmethod
    def reduce_mean(total: Tensor) -> Tensor:
        """``all_reduce(total) / world_size``, without gradient.

        As a divisor it makes the average of the ranks' gradients the gradient of the mean
        over the joined batch, whatever share of the labels each rank has.
        """
        total = total.detach().clone()
        all_reduce(total, op='mean')
        return total

    @staticmethod
    def all_reduce(values: Tensor) -> Tensor:
        """``values`` added up over the processes, with gradient to all of them.

        For losses of the joined batch that are no sums: each process then computes the same
        loss, and the average of the ranks' gradients is its gradient.
        """
        return values if get_world_size() == 1 else _AllReduce.apply(values)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Mean over the labeled pixels of the batch, for logits that are no member's."""
        labeled = (self.labels != self.ignore_index).float()
        count = self.reduce_mean(labeled.sum())
        return weighted_cross_entropy(logits, self.labels, labeled, self.ignore_index, count)

    def imitate(
        self, logits: Tensor, target: Tensor, tau: float = 1.0, weight: Tensor | None = None
    ) -> Tensor:
        """:func:`pixel_kl` of this batch, target and weight (B, h', w') resized to ``logits``."""
        target, valid = self.match_size(target, like=logits), self.valid(logits)
        if weight is None:
            return pixel_kl(logits, target, tau, valid, self.valid_count(logits))
        weight = self.match_size(weight.detach()[:, None], like=logits)[:, 0]
        avg_factor = self.reduce_mean((weight * valid).sum())
        return pixel_kl(logits, target, tau, valid, avg_factor, weight)

    @staticmethod
    def match_size(maps: Tensor, like: Tensor) -> Tensor:
        """``maps`` in float32, resized bilinearly to the height and width of ``like``."""
        return resize(maps.float(), like.shape[-2:])


class _AllReduce(torch.autograd.Function):
    """An all-reduce whose gradient is an all-reduce.

    That of ``torch.distributed.nn.functional`` is deprecated, and what it names instead private.
    """

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        total = values.detach().clone()
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return _AllReduce.apply(gradients[0])
