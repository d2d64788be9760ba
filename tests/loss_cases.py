"""One row a loss: what the tests of all losses are driven by."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import reference
from torch import Tensor

from mmseg_adm.models import losses

IGNORED = 255
CLASS_WEIGHT = (0.5, 2.0, 1.25)
GRID = (3, 1)


class LossCase(NamedTuple):
    """One loss of three channels.

    ``function`` takes student, teacher, ``valid`` and ``avg_factor``, ``expected`` the first three:
    loops over float64. ``divisor`` is what the docstring says that it divides by, ``None`` for the
    one that takes no ``avg_factor``. ``learner`` is 0 where gradient may reach the student alone, 1
    where it may reach the teacher alone. A ``divergence`` is zero, with zero gradient, for equal
    maps. ``masks_nan``: whether ignored positions may even hold NaN, in the value alone or in the
    gradient too. ``any_size``: whether doubling the resolution leaves it alone.
    """

    function: Callable[..., Tensor]
    expected: Callable[..., Tensor]
    divisor: Callable[..., Tensor] | None
    learner: int = 0
    divergence: bool = True
    masks_nan: str | None = None
    any_size: bool = True


def count(student, teacher, valid):
    return valid.sum()


def images(student, teacher, valid):
    return float(len(student))


def channels(student, teacher, valid):
    return float(student.shape[0] * student.shape[1])


def position_weight(maps, valid=None):
    """Any weight of the positions, made of a map so that every test has one."""
    weight = maps.detach()[:, 0].abs()
    return weight if valid is None else weight * valid


def weights(student, teacher, valid):
    return position_weight(teacher, valid).sum()


def labels_of(maps, valid):
    labels = maps.argmax(dim=1)
    return labels if valid is None else labels.masked_fill(~valid, IGNORED)


def with_options(name, divisor, masks_nan=None, weighted=False, **options):
    """A row of a loss whose further arguments have names."""

    def call(loss, s, t, v, further):
        weight = dict(weight=position_weight(t)) if weighted else {}
        return loss(s, t, valid=v, **weight, **options, **further)

    return LossCase(
        lambda s, t, v, n: call(getattr(losses, name), s, t, v, dict(avg_factor=n)),
        lambda s, t, v: call(getattr(reference, name), s, t, v, {}),
        divisor,
        masks_nan=masks_nan,
    )


def weighted_cross_entropy(student, teacher, valid, avg_factor, class_weight=None):
    return losses.weighted_cross_entropy(
        student,
        labels_of(teacher, valid),
        position_weight(teacher),
        IGNORED,
        avg_factor,
        None if class_weight is None else student.new_tensor(class_weight).float(),
    )


def loops_of_cross_entropy(student, teacher, valid, class_weight=None):
    return reference.weighted_cross_entropy(
        student,
        labels_of(teacher, valid),
        position_weight(teacher),
        IGNORED,
        class_weight,
    )


def diversity(student, teacher, valid, avg_factor):
    target, _ = losses.shifted_attention(teacher, valid)
    return losses.diversity(student, target, valid, avg_factor)


def loops_of_diversity(student, teacher, valid):
    target, _ = reference.shifted_attention(teacher, valid)
    return reference.diversity(student, target, valid)


def unit_distance(student, teacher, valid, avg_factor):
    vectors = [losses.flattened(maps, valid) for maps in (student, teacher)]
    return losses.unit_distance(*vectors, avg_factor)


def loops_of_unit_distance(student, teacher, valid):
    rows = [reference.flattened(maps, valid) for maps in (student, teacher)]
    return reference.unit_distance(*rows)


CASES = {
    'attention_transfer': LossCase(losses.attention_transfer, reference.attention_transfer, images),
    'channel_wise_divergence': with_options('channel_wise_divergence', channels, 'gradient'),
    'channel_wise_divergence, tau': with_options(
        'channel_wise_divergence', channels, 'gradient', tau=2.5
    ),
    'channel_wise_divergence, weight': with_options(
        'channel_wise_divergence', channels, weighted=True
    ),
    'consensus_alignment': LossCase(
        losses.consensus_alignment,
        reference.consensus_alignment,
        lambda s, t, v: (losses.similarity_map(s, t).clamp(min=0) * v).sum(),
    ),
    'cosine_distance': LossCase(
        losses.cosine_distance, reference.cosine_distance, count, masks_nan='value'
    ),
    'divergence_repulsion': LossCase(
        losses.divergence_repulsion,
        reference.divergence_repulsion,
        lambda s, t, v: ((1 - losses.similarity_map(s, t).clamp(min=0)) * v).sum(),
        learner=1,
        divergence=False,
    ),
    # Its target n - a' has an a' that falls with the resolution.
    'diversity': LossCase(diversity, loops_of_diversity, count, divergence=False, any_size=False),
    'feature_error': LossCase(
        losses.feature_error, reference.feature_error, count, masks_nan='value'
    ),
    'inter_class_correlation': with_options('inter_class_correlation', count, 'value'),
    'inter_class_correlation, tau': with_options(
        'inter_class_correlation', count, 'value', tau=2.5
    ),
    'intra_class_correlation': LossCase(
        lambda s, t, v, n: losses.intra_class_correlation(s, t, 2.5, v),
        lambda s, t, v: reference.intra_class_correlation(s, t, 2.5, v),
        None,
        masks_nan='value',
    ),
    'intra_class_variation': LossCase(
        lambda s, t, v, n: losses.intra_class_variation(s, t, labels_of(t, v), 3, IGNORED, n),
        lambda s, t, v: reference.intra_class_variation(s, t, labels_of(t, v), IGNORED),
        count,
    ),
    # Three rows: the cells of another grid would not be those of maps twice as large.
    'pairwise_affinity': LossCase(
        lambda s, t, v, n: losses.pairwise_affinity(s, t, GRID, v, n),
        lambda s, t, v: reference.pairwise_affinity(s, t, GRID, v),
        lambda s, t, v: losses.node_pairs(v, GRID).sum(),
        masks_nan='gradient',
    ),
    'pixel_kl': with_options('pixel_kl', count, 'value'),
    'pixel_kl, tau': with_options('pixel_kl', count, 'value', tau=2.5),
    'pixel_kl, weight': with_options('pixel_kl', weights, weighted=True),
    'unit_distance': LossCase(unit_distance, loops_of_unit_distance, images),
    'weighted_cross_entropy': LossCase(
        weighted_cross_entropy, loops_of_cross_entropy, weights, divergence=False
    ),
    'weighted_cross_entropy, class_weight': LossCase(
        partial(weighted_cross_entropy, class_weight=CLASS_WEIGHT),
        partial(loops_of_cross_entropy, class_weight=CLASS_WEIGHT),
        lambda s, t, v: losses.labeled_weight(
            position_weight(t), labels_of(t, v), IGNORED, s.new_tensor(CLASS_WEIGHT)
        ).sum(),
        divergence=False,
    ),
}
