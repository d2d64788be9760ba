"""What one training step offers to the methods."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from .losses.reduction import resize
from .taps import FeatureTap


class DistillationStep:
    """Captured maps, labels and divisors of one batch; each computed at most once.

    Args:
        taps: By member and point; they hold what this batch produced.
        trained: Names of the members that learn.
        labels: (B, H, W), int64.
        ignore_index: Labels that do not count.
    """

    def __init__(
        self,
        taps: Mapping[str, Mapping[str, FeatureTap]],
        trained: set[str],
        labels: Tensor,
        ignore_index: int,
    ) -> None:
        self._taps = taps
        self._trained = trained
        self.labels = labels
        self.ignore_index = ignore_index
        self._valid: dict[tuple[int, int], Tensor] = {}
        self._valid_count: dict[tuple[int, int], Tensor] = {}

    def read(self, member: str, point: str) -> Tensor:
        """The map (B, C, h, w) that ``member`` produced at ``point``.

        Raises:
            RuntimeError: If nothing was captured, or a member that trains produced it
                without gradient.
        """
        value = self._taps[member][point].value
        if torch.is_grad_enabled() and member in self._trained and not value.requires_grad:
            raise RuntimeError(
                f"'{point}' of member '{member}' carries no gradient, although the member "
                'trains: is its block checkpointed (with_cp, activation_checkpointing), or '
                'every parameter before it frozen?'
            )
        return value

    def classify(self, member: str, features: Tensor) -> Tensor:
        """Logits of the member's own classifier, without its dropout, on other features."""
        return self._taps[member]['logits'].classifier(features)

    def valid(self, maps: Tensor) -> Tensor:
        """Boolean (B, h, w): where the labels, nearest-resized to ``maps``, count."""
        size = (maps.shape[-2], maps.shape[-1])
        if size not in self._valid:
            labelled = (self.labels != self.ignore_index)[:, None].float()
            self._valid[size] = F.interpolate(labelled, size=size, mode='nearest')[:, 0] > 0
        return self._valid[size]

    def valid_count(self, maps: Tensor) -> Tensor:
        """The number of valid positions as a divisor: see :meth:`over_ranks`."""
        size = (maps.shape[-2], maps.shape[-1])
        if size not in self._valid_count:
            self._valid_count[size] = self.over_ranks(self.valid(maps).sum().float())
        return self._valid_count[size]

    @staticmethod
    def over_ranks(total: Tensor) -> Tensor:
        """``all_reduce(total) / world_size``.

        As a divisor it makes the average of the ranks' gradients the gradient of the mean
        over the joined batch, whatever share of the labels each rank has.
        """
        if get_world_size() == 1:
            return total
        total = total.detach().clone()
        all_reduce(total)
        return total / get_world_size()

    @staticmethod
    def match_size(maps: Tensor, like: Tensor) -> Tensor:
        """``maps`` resized bilinearly to the height and width of ``like``."""
        return resize(maps, like.shape[-2:])
