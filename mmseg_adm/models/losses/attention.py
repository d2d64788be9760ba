"""Losses that compare where a network looks: its spatial attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .reduction import check_positions, position_weight, weighted_mean

# Attention is of second order in the features, and so small; for the same reason the gradient
# at zero vanishes whatever is divided by.
ATTENTION_EPS = 1e-8
# Of FFSD's attention, which is pulled to a target that is as long as the peer's: the least length
# that is divided by, and the largest that is asked for. A map of mean square 1 has the length 8;
# beyond both, the gradient of a float16 map would be infinite.
LEAST_LENGTH, LARGEST_LENGTH = 1e-4, 1e3


def attention(maps: Tensor, valid: Tensor | None = None) -> Tensor:
    """``A(F)``: the mean over channels of F^2, flattened: (B, h*w) in float32.

    Zagoruyko and Komodakis, Paying More Attention to Attention (arXiv 1612.03928),
    with the mean in place of the sum, which the normalization that follows cancels.
    Nothing is detached.

    Args:
        maps: (B, C, h, w).
        valid: Boolean (B, h, w); other positions are zero.
    """
    return (maps.float().square().mean(dim=1) * position_weight(maps, valid)).flatten(1)


def flattened(maps: Tensor, valid: Tensor | None = None) -> Tensor:
    """A whole map as one vector an image: (B, C*h*w) in float32, zero where nothing is valid."""
    return (maps.float() * position_weight(maps, valid)[:, None]).flatten(1)


def unit_distance(
    student: Tensor,
    teacher: Tensor,
    avg_factor: Tensor | float | None = None,
    eps: float = 1e-4,
) -> Tensor:
    """``1/B sum_b |s_b/|s_b| - sg t_b/|t_b||^2``, between 0 and 4. Gradient: the student only.

    Args:
        student: (B, D).
        teacher: (B, D), detached here.
        avg_factor: The divisor in place of B.
        eps: The least length that is divided by: the gradient at a zero vector is its inverse.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_vectors(student, teacher)
    student, teacher = (
        F.normalize(vectors.float(), dim=1, eps=eps) for vectors in (student, teacher.detach())
    )
    distance = (student - teacher).square().sum(dim=1)
    return weighted_mean(distance, torch.ones_like(distance), avg_factor)


def _check_vectors(student: Tensor, teacher: Tensor) -> None:
    if student.dim() != 2 or student.shape != teacher.shape:
        raise ValueError(
            'student and teacher must both be (B, D) and of equal shape, got '
            f'{tuple(student.shape)} and {tuple(teacher.shape)}'
        )


def attention_transfer(
    student: Tensor,
    teacher: Tensor,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``1/B sum_b |a(s_b) - sg a(t_b)|^2``, a the attention of unit length (AT).

    Zagoruyko and Komodakis (arXiv 1612.03928), equation 2. The squared distance is the plain
    mean over positions, which the published weights refer to, times h*w: it does not depend on
    the resolution. Gradient reaches the student only.

    Args:
        student: (B, Cs, h, w).
        teacher: (B, Ct, h, w), detached here; the widths may differ.
        valid: Boolean (B, h, w); other positions are left out of both.
        avg_factor: The divisor in place of B.

    Raises:
        ValueError: If shapes disagree.
    """
    check_positions(student, teacher)
    pair = attention(student, valid), attention(teacher, valid)
    return unit_distance(*pair, avg_factor, ATTENTION_EPS)


def shifted_attention(maps: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention that looks where ``maps`` does not, and the features that would have it (FFSD).

    Li et al., Distilling a Powerful Student Model via Online Knowledge Distillation
    (arXiv 2103.14473). With ``a = A(F)``, ``n = |a|`` and ``a' = a/n``: the target is n - a' where
    a' is above the (D/3)-th smallest of its D valid entries and a' elsewhere; the features are
    F + n (target - a') / C. Everywhere n * sqrt(64/D) stands for n: that is n at the paper's
    D = 8*8, and nothing depends on the resolution; it is at most 1000. No gradient.

    Args:
        maps: (B, C, h, w), detached here.
        valid: Boolean (B, h, w); other positions keep their attention, zero, and features.

    Returns:
        The target (B, h*w) and the features (B, C, h, w), in float32.
    """
    maps = maps.detach().float()
    mask = position_weight(maps, valid).flatten(1)
    response = attention(maps, valid)
    count = mask.sum(dim=1, keepdim=True).clamp(min=1)
    length = response.norm(dim=1, keepdim=True) * (64 / count).sqrt()
    scale = length.clamp(max=LARGEST_LENGTH)
    response = _relative(response, mask)
    ranked = response.masked_fill(mask == 0, torch.inf).sort(dim=1).values
    third = (count / 3).floor().clamp(min=1).long() - 1
    above = response > ranked.gather(1, third)
    target = torch.where(above, scale - response, response)
    change = scale * (target - response) / maps.shape[1]
    return target, maps + change.unflatten(1, maps.shape[-2:])[:, None]


def diversity(
    student: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    avg_factor: Tensor | float | None = None,
) -> Tensor:
    """``mean_valid (A(F)/n - sg target)^2``: look where a peer does not (FFSD).

    Li et al. (arXiv 2103.14473), ``n = |A(F)| * sqrt(64/D)`` as in :func:`shifted_attention`.
    Gradient reaches the student only.

    Args:
        student: (B, C, h, w).
        target: (B, h*w), from :func:`shifted_attention` of the peer, detached here.
        valid: Boolean (B, h, w).
        avg_factor: The divisor in place of the number of valid positions.

    Raises:
        ValueError: If shapes disagree.
    """
    own, mask = attention(student, valid), position_weight(student, valid).flatten(1)
    _check_vectors(own, target)
    error = (_relative(own, mask) - target.detach().float()).square()
    return weighted_mean(error, mask, avg_factor)


def _relative(response: Tensor, mask: Tensor) -> Tensor:
    """Attention (B, h*w) over its length, of the size that it has at 8x8 positions."""
    count = mask.sum(dim=1, keepdim=True)
    return F.normalize(response, dim=1, eps=LEAST_LENGTH) * (count / 64).sqrt()
