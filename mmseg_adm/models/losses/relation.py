"""Losses that compare how the positions of one map relate to each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_labels, check_positions, position_weight, weighted_mean


def pairwise_affinity(
    student: Tensor,
    teacher: Tensor,
    grid: tuple[int, int] = (2, 2),
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``mean_{b,i,j} (a^s_ij - sg a^t_ij)^2`` of the affinities between pooled nodes (SKD).

    Liu et al., Structured Knowledge Distillation for Dense Prediction (arXiv 1903.04197),
    the pair-wise loss: both maps are max-pooled to a grid of nodes, a_ij is the cosine of nodes
    i and j. The nodes are few: no matrix of (h*w)^2 is ever built. Gradient reaches the student
    only.

    Args:
        student: (B, Cs, h, w).
        teacher: (B, Ct, h, w), detached here; the widths may differ.
        grid: Rows and columns of nodes; the paper's 2x2 pools halves of the map.
        valid: Boolean (B, h, w); others are left out of the pooling, and a node without any
            valid position out of the mean.
        avg_factor: The divisor in place of the number of pairs of nodes.

    Raises:
        ValueError: If shapes disagree.
    """
    check_positions(student, teacher)
    difference = affinity(student, grid, valid) - affinity(teacher.detach(), grid, valid)
    pairs = torch.ones_like(difference) if valid is None else node_pairs(valid, grid)
    return weighted_mean(difference.square(), pairs, avg_factor)


def affinity(maps: Tensor, grid: tuple[int, int], valid: Tensor | None = None) -> Tensor:
    """Cosines between the max-pooled nodes of (B, C, h, w): (B, N, N), N nodes in ``grid``."""
    mask = position_weight(maps, valid)[:, None]
    lowest = torch.finfo(torch.float32).min
    nodes = F.adaptive_max_pool2d(maps.float().masked_fill(mask == 0, lowest), grid)
    nodes = nodes.masked_fill(F.adaptive_max_pool2d(mask, grid) == 0, 0).flatten(2)
    # As for cosines elsewhere: torch's 1e-12 would let a dead node outweigh all others.
    nodes = F.normalize(nodes, dim=1, eps=1e-4)
    with torch.autocast(nodes.device.type, enabled=False):
        return nodes.transpose(1, 2) @ nodes


def node_pairs(valid: Tensor, grid: tuple[int, int]) -> Tensor:
    """1 where both nodes of a pair have a valid position, else 0: (B, N, N).

    Its sum is what :func:`pairwise_affinity` divides by.
    """
    nodes = F.adaptive_max_pool2d(valid[:, None].float(), grid).flatten(1)
    return nodes[:, :, None] * nodes[:, None]


def intra_class_variation(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``mean_valid (M^s_p - sg M^t_p)^2``, M_p how similar p is to its class (IFVD).

    Wang et al., Intra-class Feature Variation Distillation for Semantic Segmentation
    (ECCV 2020). Gradient reaches the student only, also through its class
    means.

    Args:
        student: (B, Cs, h, w).
        teacher: (B, Ct, h, w), detached here; the widths may differ.
        labels: (B, h, w), int64, at the size of the maps.
        num_classes: The labels that count are below it.
        ignore_index: Labels that do not count.
        avg_factor: The divisor in place of the number of valid positions.

    Raises:
        ValueError: If shapes disagree.
    """
    check_positions(student, teacher)
    check_labels(student, labels)
    own = class_similarity(student, labels, num_classes, ignore_index)
    other = class_similarity(teacher.detach(), labels, num_classes, ignore_index)
    weight = position_weight(student, labels != ignore_index)
    return weighted_mean((own - other).square(), weight, avg_factor)


def class_similarity(
    maps: Tensor, labels: Tensor, num_classes: int, ignore_index: int = 255
) -> Tensor:
    """``M_p``: the cosine of a position and the mean of its class in its image, (B, h, w).

    Zero where nothing is labeled. Arguments as for :func:`intra_class_variation`.
    """
    features = maps.float().flatten(2)
    valid = labels != ignore_index
    # What is ignored has a class of its own.
    index = labels.masked_fill(~valid, num_classes).flatten(1)[:, None].expand_as(features)
    slots = features.new_zeros(*features.shape[:2], num_classes + 1)
    total = slots.scatter_add(2, index, features)
    count = slots[:, :1].scatter_add(2, index[:, :1], torch.ones_like(features[:, :1]))
    means = (total / count.clamp(min=1)).gather(2, index)
    # At a dead position the gradient is 1 / eps.
    cosine = F.cosine_similarity(features, means, dim=1, eps=1e-4)
    return cosine.unflatten(1, maps.shape[-2:]) * valid
