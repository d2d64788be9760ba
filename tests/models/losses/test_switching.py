from math import exp, log

import pytest
import reference
import torch
from torch.testing import assert_close

from mmseg_adm.models.losses import distribution_distance, label_distance, switching_threshold

IGNORED = 255


def to_labels(logits, others, tau=1.0, valid=None, avg_factor=None):
    """:func:`label_distance` with the arguments of the other one."""
    labels = others.argmax(dim=1)
    labels = labels if valid is None else labels.masked_fill(~valid, IGNORED)
    return label_distance(logits, labels, tau, avg_factor=avg_factor)


DISTANCES = [distribution_distance, to_labels]


@pytest.fixture
def batch():
    return torch.randn(2, 3, 3, 4), torch.randn(2, 3, 3, 4), torch.rand(2, 3, 4) > 0.4


@pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])
@pytest.mark.parametrize('tau', [1.0, 2.5])
def test_distances_match_loop_reference(batch, tau, masked):
    first, second, valid = batch
    valid = valid if masked else None
    value = distribution_distance(first, second, tau, valid)
    assert_close(value, reference.distribution_distance(first, second, tau, valid).float())
    labels = second.argmax(dim=1)
    labels = labels.masked_fill(~valid, IGNORED) if masked else labels
    expected = reference.label_distance(first, labels, tau)
    assert_close(label_distance(first, labels, tau), expected.float())


@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_distances_by_hand(tau):
    # (3/4, 1/4) against (1/2, 1/2) is 1/4 + 1/4, (1/2, 1/2) against itself 0: mean 1/4, and 1/2
    # of the first alone. Against the labels 0 and 1: 2 (1 - 3/4) and 2 (1 - 1/2): mean 3/4.
    first = tau * torch.tensor([[[[log(3), 0.0]], [[0.0, 0.0]]]])
    second, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    valid = torch.tensor([[[True, False]]])
    assert_close(distribution_distance(first, second, tau), torch.tensor(0.25))
    assert_close(distribution_distance(first, second, tau, valid), torch.tensor(0.5))
    assert_close(label_distance(first, labels, tau), torch.tensor(0.75))
    labels = labels.masked_fill(~valid, IGNORED)
    assert_close(label_distance(first, labels, tau), torch.tensor(0.5))


def test_distances_lie_between_zero_and_two():
    certain = 100 * torch.eye(3).reshape(1, 3, 1, 3)
    labels, others = certain.argmax(dim=1), certain.roll(1, dims=1)
    for distance in (distribution_distance(certain, certain), label_distance(certain, labels)):
        assert distance == 0
    for distance in (distribution_distance(certain, others), label_distance(others, labels)):
        assert_close(distance, torch.tensor(2.0))


def test_the_gap_has_no_side(batch):
    first, second, valid = batch
    expected = distribution_distance(second, first, valid=valid)
    assert_close(distribution_distance(first, second, valid=valid), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize('distance', DISTANCES)
def test_distances_are_float32_without_gradient(distance, batch, dtype):
    *logits, valid = batch
    half = [own.to(dtype).requires_grad_() for own in logits]
    with torch.autocast('cpu', torch.bfloat16):
        value = distance(*half, valid=valid)
    assert not value.requires_grad
    assert_close(value, distance(*(own.float() for own in half), valid=valid))
    assert_close(value, distance(*logits, valid=valid), rtol=0.02, atol=0.02)


@pytest.mark.parametrize('avg_factor', [None, 0.0, torch.tensor(0.0)])
@pytest.mark.parametrize('distance', DISTANCES)
def test_distances_over_nothing_are_zero(distance, batch, avg_factor):
    first, second, valid = batch
    assert distance(first, second, valid=torch.zeros_like(valid), avg_factor=avg_factor) == 0


@pytest.mark.parametrize('number', [1e4, float('nan'), float('inf')])
@pytest.mark.parametrize('distance', DISTANCES)
def test_ignored_positions_may_hold_anything(distance, batch, number):
    first, second, valid = batch
    changed = first.masked_fill(~valid[:, None], number)
    assert_close(distance(changed, second, valid=valid), distance(first, second, valid=valid))


@pytest.mark.parametrize('distance', DISTANCES)
def test_distances_of_twice_the_batch_or_resolution_are_the_same(distance, batch):
    expected = distance(batch[0], batch[1], valid=batch[2])
    for first, second, valid in (
        [torch.cat([x, x]) for x in batch],
        [x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2) for x in batch],
    ):
        assert_close(distance(first, second, valid=valid), expected)


@pytest.mark.parametrize('as_tensor', [False, True], ids=['number', 'tensor'])
@pytest.mark.parametrize('distance', DISTANCES)
def test_avg_factor_replaces_the_divisor(distance, batch, as_tensor):
    first, second, valid = batch
    divisor = torch.tensor(7.0) if as_tensor else 7
    total = distance(first, second, valid=valid) * valid.sum()
    assert_close(distance(first, second, valid=valid, avg_factor=divisor), total / 7)


@pytest.mark.parametrize('ignore_index', [0, -1])
def test_any_index_may_be_ignored(batch, ignore_index):
    logits, others, valid = batch
    logits[:, 0] = -1e4
    labels = 1 + others[:, 1:].argmax(dim=1)
    value = label_distance(
        logits, labels.masked_fill(~valid, ignore_index), ignore_index=ignore_index
    )
    assert_close(value, label_distance(logits, labels.masked_fill(~valid, IGNORED)))


@pytest.mark.parametrize('shape', [(2, 2, 3), (2, 8, 10), (1, 4, 5), (2, 1, 4, 5), (2, 4)])
def test_label_distance_refuses_other_labels(shape):
    with pytest.raises(ValueError) as error:
        label_distance(torch.zeros(2, 3, 4, 5), torch.zeros(shape, dtype=torch.int64))
    assert str(shape) in str(error.value)


def test_threshold_matches_reference():
    student, teacher = 2 * torch.rand(2, 20)
    expected = reference.switching_threshold(student, teacher)
    assert_close(switching_threshold(student, teacher), expected.float())


@pytest.mark.parametrize(
    ('student', 'teacher', 'expected'),
    [
        # eps = exp(-0.5 / 1.5): 1 - 0.5 / e^(1/3)
        (1.0, 0.5, 1 - 0.5 * exp(-1 / 3)),
        # eps = exp(-1/2)
        (1.0, 1.0, 1 - exp(-1 / 2)),
        # A perfect teacher leaves s, a perfect student -t / e, two of them nothing.
        (1.5, 0.0, 1.5),
        (0.0, 1.5, -1.5 * exp(-1)),
        (0.0, 0.0, 0.0),
    ],
)
def test_threshold_by_hand(student, teacher, expected):
    value = switching_threshold(torch.tensor(student), torch.tensor(teacher))
    assert_close(value, torch.tensor(expected))
