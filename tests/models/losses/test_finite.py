"""Whatever is finite has finite losses and finite gradients."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from loss_cases import CASES, IGNORED, labels_of
from reference import value_and_gradients

from mmseg_adm.models import losses

CHANNELS = 3
SHAPES = [(1, 1, 1), (1, 1, 2), (1, 3, 5), (4, 1, 1), (3, 3, 2)]
MASKS = ['no mask', 'all', 'none', 'one', 'half']
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def constant(maps, valid, size):
    return torch.full_like(maps, size)


def dead(maps, valid, size):
    return torch.zeros_like(maps)


def one_position(maps, valid, size):
    """All of it at one position."""
    maps = torch.zeros_like(maps)
    maps[0, :, 0, 0] = size
    return maps


def only_ignored(maps, valid, size):
    """The first class is predicted where nothing is labeled alone."""
    maps = maps.clone()
    maps[:, 0] = torch.where(valid, -size, size)
    return maps


def nowhere(maps, valid, size):
    """The first class is predicted nowhere."""
    maps = maps.clone()
    maps[:, 0] -= size
    return maps


def random(maps, valid, size):
    return size * maps


def no_channel(maps, valid, size):
    """The first channel is dead."""
    maps = size * maps
    maps[:, 0] = 0
    return maps


KINDS = [random, random, constant, dead, no_channel, one_position, only_ignored, nowhere]


@st.composite
def batches(draw):
    """Student, teacher, mask: finite maps of 1e-6 to 1e4, or as logits can lie apart."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    size, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
    mask = draw(st.sampled_from(MASKS))
    valid = torch.rand(size, generator=generator) < dict(none=0.0, half=0.5).get(mask, 1.0)
    if mask == 'one':
        valid = torch.arange(valid.numel()).reshape(size) == 0
    maps = []
    for _ in range(2):
        noise = torch.randn(size[0], CHANNELS, *size[1:], generator=generator)
        magnitude = draw(st.floats(-6, 4).map(lambda exponent: 10**exponent) | st.floats(40, 120))
        kind = draw(st.sampled_from(KINDS))
        maps.append(kind(noise, valid, magnitude).clamp(-1e4, 1e4).to(dtype))
    student, teacher = maps
    if draw(st.integers(0, 3)) == 0:
        student = teacher.clone()
    return student, teacher, None if mask == 'no mask' else valid


def drawn(student, teacher, dtype=torch.float32):
    """One batch of 2x3x5 positions, the last of each image ignored."""
    noise = torch.randn(2, 2, CHANNELS, 3, 5, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(2, 3, 5, dtype=torch.bool)
    valid[:, 2, 4] = False
    maps = [function(maps, valid, size)
            for maps, (function, size) in zip(noise, (student, teacher), strict=True)]  # fmt: skip
    return *(each.to(dtype) for each in maps), valid


# What was not finite once, always among the examples. Of logits, with a temperature of 1 and 2.5.
LOGIT_GAPS = [
    (kind, tau * gap)
    for kind, gaps in ((only_ignored, (60, 100)), (nowhere, (95, 103)))
    for gap in gaps
    for tau in (1, 2.5)
]
KNOWN = [
    *(drawn((random, 1), gap) for gap in LOGIT_GAPS),
    *(drawn(gap, (random, 1)) for gap in LOGIT_GAPS),
    *(drawn((random, small), (random, large), torch.float16)
      for small, large in ((3e-6, 100), (3e-4, 30), (3e-4, 3000), (2, 1000), (1e-2, 1e4))),
]  # fmt: skip


# What is no loss of its own: values without a divisor, some of them without gradient.
FUNCTIONS = {
    'affinity': lambda s, t, v: losses.affinity(s, (3, 1), v),
    'attention': lambda s, t, v: losses.attention(s, v),
    'center_over_classes': lambda s, t, v: losses.center_over_classes(s),
    'class_similarity': lambda s, t, v: losses.class_similarity(s, labels_of(t, v), CHANNELS),
    'consensus_weight': lambda s, t, v: torch.stack([
        losses.consensus_weight(losses.similarity_map(s, t), contrast, v)
        for contrast in (None, 'center', 'standardize', 'rank')
    ]),
    'cross_entropy_sum': lambda s, t, v: losses.cross_entropy_sum(
        s, labels_of(t, None), torch.ones_like(s[:, 0])
    ),
    'distribution_distance': lambda s, t, v: losses.distribution_distance(s, t, 2.5, v),
    'divergence_weight': lambda s, t, v: losses.divergence_weight(losses.similarity_map(s, t)),
    'flattened': lambda s, t, v: losses.flattened(s, v),
    'label_distance': lambda s, t, v: losses.label_distance(s, labels_of(t, v)),
    'labeled_weight': lambda s, t, v: losses.labeled_weight(s[:, 0].abs(), labels_of(t, v)),
    'mean_target': lambda s, t, v: losses.mean_target([s, t], labels_of(t, v)),
    'min_logit_target': lambda s, t, v: losses.min_logit_target([s, t], labels_of(t, v)),
    'naive_target': lambda s, t, v: losses.naive_target([s, t], labels_of(t, v)),
    'node_pairs': lambda s, t, v: losses.node_pairs(labels_of(t, v) != IGNORED, (3, 1)),
    'shifted_attention': lambda s, t, v: torch.cat([
        each.flatten() for each in losses.shifted_attention(s, v)
    ]),
    'shuffled': lambda s, t, v: losses.shuffled(s[:, 0], labels_of(t, v) != IGNORED),
    'similarity_map': lambda s, t, v: losses.similarity_map(s, t),
    'switching_threshold': lambda s, t, v: losses.switching_threshold(
        losses.label_distance(s, labels_of(t, v)), losses.label_distance(t, labels_of(t, v))
    ),
    'weighted_mean': lambda s, t, v: losses.weighted_mean(s.float(), t.detach().float().abs()),
}  # fmt: skip


def test_every_formula_is_tried():
    tried = {name.partition(',')[0] for name in CASES} | FUNCTIONS.keys()
    assert tried == set(losses.__all__)


def check(function, batch):
    student, teacher, valid = batch
    value, gradients = value_and_gradients(lambda s, t: function(s, t, valid), student, teacher)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def finite_examples(test):
    """Hypothesis' examples, the same in every run, after the known ones."""
    test = hypothesis.given(batch=batches())(test)
    for batch in KNOWN:
        test = hypothesis.example(batch=batch)(test)
    return hypothesis.settings(max_examples=40, deadline=None, derandomize=True, database=None)(
        test
    )


@pytest.mark.parametrize('name', CASES)
@finite_examples
def test_losses_and_their_gradients(name, batch):
    check(lambda s, t, v: CASES[name].function(s, t, v, None), batch)


@pytest.mark.slow
@pytest.mark.parametrize('name', FUNCTIONS)
@finite_examples
def test_other_formulas(name, batch):
    # Some pass no gradient.
    check(lambda s, t, v: FUNCTIONS[name](s, t, v).float().mean() + 0 * s.float().sum(), batch)
