"""One target out of several networks' logits (KDCL).

Guo et al., Online Knowledge Distillation via Collaborative Learning (CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_labels


def naive_target(logits: Sequence[Tensor], labels: Tensor, ignore_index: int = 255) -> Tensor:
    """The logits of the network that is best on an image: KDCL-Naive.

    Best is who has the lower mean cross entropy over the image's labeled pixels; among equals
    the first. No gradient.

    Args:
        logits: Two or more (B, K, h, w).
        labels: (B, h, w), int64, at the size of the logits.
        ignore_index: Labels that do not count.

    Raises:
        ValueError: If shapes disagree.
    """
    stacked = _stacked(logits, labels)
    # All networks are summed over the same pixels: no need to divide.
    losses = [
        F.cross_entropy(own, labels, ignore_index=ignore_index, reduction='none').sum(dim=(1, 2))
        for own in stacked
    ]
    best = torch.stack(losses).argmin(dim=0)
    return stacked[best, torch.arange(len(labels), device=labels.device)]


def min_logit_target(logits: Sequence[Tensor], labels: Tensor, ignore_index: int = 255) -> Tensor:
    """``z_k = min_m (z_{m,k} - z_{m,y})``: KDCL-MinLogit.

    At each pixel and for each class the network that is least mistaken about it, the logits
    taken relative to that of the true class. Zero where nothing is labeled. No gradient.

    Arguments and errors as for :func:`naive_target`.
    """
    stacked = _stacked(logits, labels)
    valid = labels != ignore_index
    true = stacked.gather(2, labels.masked_fill(~valid, 0)[None, :, None].expand(
        len(stacked), -1, -1, -1, -1
    ))  # fmt: skip
    return (stacked - true).min(dim=0).values * valid[:, None]


def mean_target(logits: Sequence[Tensor], labels: Tensor, ignore_index: int = 255) -> Tensor:
    """The mean of the logits: our own plain variant. No gradient.

    Arguments and errors as for :func:`naive_target`.
    """
    return _stacked(logits, labels).mean(dim=0)


def _stacked(logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    if any(own.shape != logits[0].shape for own in logits):
        raise ValueError(
            'expected logits of equal shape (B, K, h, w), got '
            f'{[tuple(own.shape) for own in logits]}: resize them first'
        )
    check_labels(logits[0], labels)
    return torch.stack([own.detach().float() for own in logits])
