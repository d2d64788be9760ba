from math import sqrt

import pytest
import reference
import torch
import torch.nn.functional as F
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models.losses import (
    attention,
    attention_transfer,
    diversity,
    flattened,
    shifted_attention,
    unit_distance,
)


@pytest.fixture(params=[False, True], ids=['all', 'masked'])
def valid(request):
    """None, or a mask that leaves nothing of the second of three images."""
    if not request.param:
        return None
    mask = torch.rand(3, 3, 4) > 0.4
    mask[1] = False
    return mask


def test_attention_by_hand():
    # (3^2 + 4^2) / 2 and (1^2 + 0^2) / 2; the third position does not count.
    maps = torch.tensor([[[[3.0, -1.0, 5.0]], [[4.0, 0.0, 5.0]]]])
    assert_close(attention(maps), torch.tensor([[12.5, 0.5, 25.0]]))
    valid = torch.tensor([[[True, True, False]]])
    assert_close(attention(maps, valid), torch.tensor([[12.5, 0.5, 0.0]]))


def test_flattened_by_hand():
    maps = torch.arange(8.0).reshape(1, 2, 2, 2)
    valid = torch.tensor([[[True, True], [False, True]]])
    assert_close(flattened(maps), torch.arange(8.0)[None])
    expected = torch.tensor([[0.0, 1.0, 0.0, 3.0, 4.0, 5.0, 0.0, 7.0]])
    assert_close(flattened(maps, valid), expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('function', [attention, flattened])
def test_vectors_of_half_precision_are_float32_with_gradient(function, dtype):
    # 300^2 is beyond float16, and 323 is no bfloat16.
    maps = (300 + torch.arange(24.0).reshape(1, 2, 3, 4)).to(dtype).requires_grad_()
    vectors = function(maps)
    assert vectors.requires_grad
    assert_close(vectors, function(maps.float()))


def test_unit_distance_by_hand():
    # (0.6 - 0)^2 + (0.8 - 1)^2 = 0.4, and 2^2 of opposite vectors; divided by 2, then by 8.
    student, teacher = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[0.0, 2.0], [-5, 0]])
    assert_close(unit_distance(student, teacher), torch.tensor(2.2))
    assert_close(unit_distance(student, teacher, 8), torch.tensor(0.55))


@pytest.mark.parametrize(
    ('student_shape', 'teacher_shape'),
    [((2, 6), (2, 5)), ((2, 6), (1, 6)), ((2, 3, 2), (2, 3, 2)), ((6,), (6,))],
)
def test_unit_distance_refuses_other_shapes(student_shape, teacher_shape):
    with pytest.raises(ValueError, match=r'\(B, D\) and of equal shape') as error:
        unit_distance(torch.zeros(student_shape), torch.zeros(teacher_shape))
    assert f'got {student_shape} and {teacher_shape}' in str(error.value)


def test_attention_transfer_by_hand():
    # Squares (3, 4) of length 5 and (1, 0), of a teacher twice as wide: (0.6, 0.8) and (1, 0).
    # 0.4^2 + 0.8^2 = 0.8 in the first image and 0 in the second, which looks where it should.
    student = torch.tensor([sqrt(3), -2.0, 7.0, 7.0]).reshape(2, 1, 1, 2)
    teacher = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [2.0, 2.0], [1.0, 1.0]]).reshape(2, 2, 1, 2)
    assert_close(attention_transfer(student, teacher), torch.tensor(0.4))
    valid = torch.tensor([[[True, False]], [[True, True]]])
    assert_close(attention_transfer(student, teacher, valid), torch.tensor(0.0))


@pytest.mark.parametrize(
    ('loss', 'shape'), [(attention_transfer, (2, 3, 3, 4)), (unit_distance, (2, 12))]
)
def test_equal_directions_give_zero(loss, shape):
    student = torch.randn(shape)
    value, (gradient, _) = value_and_gradients(loss, student, 3 * student)
    assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-6)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


@pytest.mark.parametrize('side', [0, 1], ids=['student', 'teacher'])
def test_a_dead_map_gives_one_without_a_burst(side):
    maps = list(torch.randn(2, 1, 3, 3, 4))
    maps[side] = torch.zeros_like(maps[side])
    value, (gradient, _) = value_and_gradients(attention_transfer, *maps)
    assert_close(value, torch.tensor(1.0))
    assert gradient.norm() < 1e4


@pytest.mark.parametrize('channels', [1, 3])
def test_shifted_attention_matches_loop_reference(valid, channels):
    maps = torch.randn(3, channels, 3, 4)
    for value, expected in zip(
        shifted_attention(maps, valid), reference.shifted_attention(maps, valid), strict=True
    ):
        assert_close(value, expected.float())


def test_shifted_attention_by_hand():
    # a = (1, 3, 3, 9) of length 10, n = 10 * sqrt(64/4) = 40, a' = a/40. One third of four
    # entries is one: all above 0.025 turn to 40 - a'. Features change by 40 (40 - 2a') / 2.
    row = torch.tensor([1.0, sqrt(3), -sqrt(3), 3.0])
    maps = torch.stack([row, -row]).reshape(1, 2, 2, 2)
    target, features = shifted_attention(maps)
    assert_close(target, torch.tensor([[0.025, 39.925, 39.925, 39.775]]))
    change = torch.tensor([0.0, 797.0, 797.0, 791.0]).reshape(1, 1, 2, 2)
    assert_close(features, maps + change)


def test_shifted_attention_of_masked_positions_by_hand():
    # As above in four of six positions.
    row = torch.tensor([100.0, 1.0, sqrt(3), sqrt(3), 3.0, 0.0]).reshape(1, 1, 2, 3)
    valid = torch.tensor([[[False, True, True], [True, True, False]]])
    target, features = shifted_attention(row, valid)
    assert_close(target, torch.tensor([[0.0, 0.025, 39.925, 39.925, 39.775, 0.0]]))
    change = torch.tensor([0.0, 0.0, 1594.0, 1594.0, 1582.0, 0.0]).reshape(1, 1, 2, 3)
    assert_close(features, row + change)


def test_shifted_attention_looks_where_the_map_does_not():
    maps = torch.rand(1, 1, 4, 4)
    target, _ = shifted_attention(maps)
    above = target[0] > 1
    assert above.sum() == 16 - 16 // 3
    own, other = attention(maps)[0][above], target[0][above]
    assert own.argsort().equal(other.argsort(descending=True))


def test_shifted_attention_of_one_position_or_equal_ones_shifts_nothing():
    for maps in (torch.full((1, 2, 1, 1), 3.0), torch.full((1, 2, 2, 2), 3.0)):
        target, features = shifted_attention(maps)
        # 1 / sqrt(D) by |a|, times sqrt(D / 64).
        assert_close(target, torch.full_like(target, 1 / 8))
        assert_close(features, maps)


def test_shifted_attention_of_nothing_changes_nothing():
    maps = torch.randn(2, 3, 2, 2)
    nothing = torch.zeros(2, 2, 2, dtype=torch.bool)
    for given, valid in ((maps, nothing), (torch.zeros_like(maps), None)):
        target, features = shifted_attention(given, valid)
        assert target.eq(0).all()
        assert_close(features, given)


def test_shifted_attention_is_float32_without_gradient():
    maps = torch.randn(2, 3, 3, 4, dtype=torch.bfloat16, requires_grad=True)
    for value, expected in zip(
        shifted_attention(maps), shifted_attention(maps.float()), strict=True
    ):
        assert not value.requires_grad
        assert_close(value, expected)


def test_masked_positions_shift_nothing():
    maps, valid = torch.randn(2, 3, 3, 4), torch.rand(2, 3, 4) > 0.4
    expected_target, expected = shifted_attention(maps, valid)
    other = torch.where(valid[:, None], maps, 1e4 * torch.randn_like(maps))
    target, features = shifted_attention(other, valid)
    assert_close(target, expected_target)
    assert_close(torch.where(valid[:, None], features, maps), expected)
    assert_close(torch.where(valid[:, None], maps, features), other)


def twice(maps):
    """The same at twice the resolution."""
    return maps.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)


def test_shifted_attention_does_not_depend_on_the_resolution():
    maps = torch.randn(2, 3, 3, 4)
    target, features = shifted_attention(maps)
    doubled_target, doubled_features = shifted_attention(twice(maps))
    assert_close(doubled_target, twice(target.unflatten(1, (3, 4))).flatten(1))
    assert_close(doubled_features, twice(features))


def test_diversity_by_hand():
    # Squares (3, 4, 0, 0) of length 5, n = 5 * sqrt(64/4) = 20: (0.15, 0.2, 0, 0). The first
    # position alone is 1 of length 1, n = 8.
    student = torch.tensor([sqrt(3), -2.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    target = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    assert_close(diversity(student, target), torch.tensor((0.85**2 + 0.2**2) / 4))
    valid = torch.tensor([[[True, False], [False, False]]])
    assert_close(diversity(student, target, valid), torch.tensor((1 - 1 / 8) ** 2))


def test_diversity_from_the_own_direction_is_zero():
    student = torch.randn(2, 3, 3, 4)
    target = F.normalize(attention(student), dim=1) * sqrt(12 / 64)
    value, (gradient, _) = value_and_gradients(diversity, student, target)
    assert_close(value, torch.tensor(0.0))
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-7)


def test_diversity_does_not_depend_on_the_resolution():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    results = [
        value_and_gradients(diversity, own, shifted_attention(other)[0])
        for own, other in ((student, teacher), (twice(student), twice(teacher)))
    ]
    (value, (gradient, _)), (doubled, (doubled_gradient, _)) = results
    assert_close(doubled, value)
    # Four positions share what one had.
    assert_close(4 * F.avg_pool2d(doubled_gradient, 2), gradient)


@pytest.mark.parametrize('shape', [(2, 10), (1, 20), (20,), (2, 1), (2, 4, 5)])
def test_diversity_refuses_other_targets(shape):
    with pytest.raises(ValueError) as error:
        diversity(torch.randn(2, 3, 4, 5), torch.zeros(shape))
    assert str(shape) in str(error.value)
