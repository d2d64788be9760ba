"""The cross entropy of a member's own decode head, with other weights for its pixels."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.losses import CrossEntropyLoss
from torch import Tensor, nn

from .losses import cross_entropy_sum, labeled_weight
from .losses.reduction import divided, resize
from .step import DistillationStep
from .taps import decode_head_of


class OwnCrossEntropy(nn.Module):
    """``CE(z, y; w) = sum_p w_p q_p CE_p / sum_p w_p q_p`` as a member's own loss has it.

    q_p is what the decode head's own cross entropy multiplies that of pixel p with: the weight
    of its class, zero where the label is the head's ``ignore_index`` or its sampler (OHEM)
    leaves the pixel out. The logits are resized with the head's ``align_corners``. Gradient
    reaches the logits only; means of weights are over the batch of all processes.

    Args:
        name: The member.
        network: Its segmentor, which is not kept.
        weigh_classes: Whether to weigh classes as the head does, or all alike.

    Raises:
        ValueError: If the decode head trains with no softmax cross entropy.
    """

    class_weight: Tensor | None

    def __init__(self, name: str, network: nn.Module, weigh_classes: bool = True) -> None:
        super().__init__()
        self.member = name
        head: Any = decode_head_of(network)
        loss = softmax_cross_entropy(head)
        if loss is None:
            raise ValueError(
                f"the {type(head).__name__} of '{name}' has no softmax cross entropy to weigh, it "
                f'trains with {", ".join(type(each).__name__ for each in losses_of(head))}: add a '
                'CrossEntropyLoss without use_sigmoid to its loss_decode'
            )
        self.align_corners: bool = head.align_corners
        self.ignore_index: int = head.ignore_index
        weight = None if loss.class_weight is None else torch.tensor(loss.class_weight).float()
        self.register_buffer('class_weight', weight if weigh_classes else None, persistent=False)
        self.loss_weight: float = loss.loss_weight
        self.summed = loss.reduction == 'sum'
        # mmseg with reduction='none' leaves the mean, over all pixels, to MMEngine.
        self.over_all_pixels = loss.reduction == 'none' or (
            weight is None and not loss.avg_non_ignore
        )

    def weighted(
        self, step: DistillationStep, logits: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """``CE(z, y; w)``; without a weight all pixels that count do so as in the own loss.

        Args:
            step: What holds the labels.
            logits: (B, K, h, w), the member's own or of its classifier.
            weight: (B, h', w'), not negative, resized to the labels, detached.
        """
        labels = self._labels(step, logits)
        counted = self._labeled(labels) * step.sample(self.member, logits, labels)
        if weight is not None:
            counted = counted * _at(labels, weight)
        total = cross_entropy_sum(logits, labels, counted, self.align_corners)
        return divided(total, step.reduce_mean(counted.sum()))

    def reweighted(self, step: DistillationStep, logits: Tensor, weight: Tensor) -> Tensor:
        """What weights w in place of equal ones change in the own loss, at most all of it.

        ``sum_p (w_p / mean(w) - 1) q_p CE_p``, with ``mean(w) = sum w q / sum q``, divided and
        weighed as the own loss is: added to that one with a factor a, it is the own loss with
        weights ``1 - a + a w_p / mean(w)``. Where all weights are zero it changes nothing.

        Args:
            step: What holds the labels.
            logits: (B, K, h, w), the member's own.
            weight: (B, h', w'), not negative, resized to the labels, detached.
        """
        labels = self._labels(step, logits)
        labeled = self._labeled(labels)
        counted = labeled * step.sample(self.member, logits, labels)
        weighted = counted * _at(labels, weight)
        sums = torch.stack([counted.sum(), weighted.sum()])
        of_counted, of_weighted = step.reduce_mean(sums)
        change = divided(weighted, of_weighted) * of_counted - counted
        change = change.where(of_weighted != 0, 0)
        total = cross_entropy_sum(logits, labels, change, self.align_corners) * self.loss_weight
        if self.summed:
            return total
        if self.over_all_pixels:
            return total / labels.numel()
        # As mmseg does it, each process by its own.
        return divided(total, labeled.sum())

    def _labels(self, step: DistillationStep, logits: Tensor) -> Tensor:
        """What is no class another member ignores: the member's own loss has let it pass."""
        is_class = (step.labels >= 0) & (step.labels < logits.shape[1])
        return step.labels.where(is_class, self.ignore_index)

    def _labeled(self, labels: Tensor) -> Tensor:
        everywhere = torch.ones_like(labels, dtype=torch.float32)
        return labeled_weight(everywhere, labels, self.ignore_index, self.class_weight)


def softmax_cross_entropy(head: nn.Module) -> CrossEntropyLoss | None:
    """The softmax cross entropy of a decode head, wherever it stands among its losses."""
    for loss in losses_of(head):
        if isinstance(loss, CrossEntropyLoss) and not (loss.use_sigmoid or loss.use_mask):
            return loss
    return None


def losses_of(head: nn.Module) -> list[nn.Module]:
    """The losses of a decode head, one or several."""
    losses: Any = head.loss_decode
    return list(losses) if isinstance(losses, nn.ModuleList) else [losses]


def _at(labels: Tensor, weight: Tensor) -> Tensor:
    return resize(weight.detach().float()[:, None], labels.shape[-2:])[:, 0]
