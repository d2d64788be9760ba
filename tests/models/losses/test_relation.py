from functools import partial
from math import sqrt

import pytest
import reference
import torch
from reference import value_and_gradients
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from mmseg_adm.models.losses import (
    affinity,
    class_similarity,
    intra_class_variation,
    node_pairs,
    pairwise_affinity,
)

IGNORED = 255


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, (tuple, list)) else [result]
        sizes = [x.numel() for x in outputs if isinstance(x, torch.Tensor)]
        self.numel = max(self.numel, *sizes, 0)
        return result


@pytest.mark.parametrize('grid', [(2, 2), (3, 2), (1, 4), (4, 5)])
def test_pairwise_affinity_matches_loop_reference(grid):
    student, teacher = torch.randn(2, 2, 5, 3), torch.randn(2, 4, 5, 3)
    valid = torch.rand(2, 5, 3) > 0.4
    value, gradients = value_and_gradients(
        partial(pairwise_affinity, grid=grid, valid=valid), student, teacher
    )
    expected, expected_gradients = value_and_gradients(
        partial(reference.pairwise_affinity, grid=grid, valid=valid), student, teacher
    )
    assert_close(value, expected.float())
    assert_close(gradients, expected_gradients)


def test_pairwise_affinity_by_hand():
    # The student's nodes are (3, 4) and (1, 0), of cosine 0.6; the teacher's, of one channel,
    # 2 and 3, of cosine 1. Two of the four pairs differ: 2 * 0.4^2 / 4.
    student = torch.tensor([[[[3.0, 1.0, 1.0, 0.0]], [[0.0, 4.0, 0.0, -2.0]]]])
    teacher = torch.tensor([[[[2.0, 1.0, 3.0, -1.0]]]])
    assert_close(pairwise_affinity(student, teacher, (1, 2)), torch.tensor(0.08))
    # Without the second position the first node is (3, 0), of cosine 1 with (1, 0).
    valid = torch.tensor([[[True, False, True, True]]])
    assert_close(pairwise_affinity(student, teacher, (1, 2), valid), torch.tensor(0.0))


def test_affinity_by_hand():
    # Nodes (3, 4), (1, 0) and (0, 0).
    maps = torch.tensor([[[[3.0, 1.0, 0.0]], [[4.0, 0.0, 0.0]]]])
    expected = torch.tensor([[[1.0, 0.6, 0.0], [0.6, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    assert_close(affinity(maps, (1, 3)), expected)
    valid = torch.tensor([[[True, False, True]]])
    expected = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    assert_close(affinity(maps, (1, 3), valid), expected)


def test_node_pairs_by_hand():
    # Halves: the first has a valid position, the second of the first image has none.
    valid = torch.tensor([[[True, False, False, False]], [[False, True, True, True]]])
    expected = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert_close(node_pairs(valid, (1, 2)), expected)


@pytest.mark.parametrize('size', [(1, 1), (1, 5)])
def test_pairwise_affinity_of_maps_below_the_grid(size):
    student, teacher = torch.randn(2, 2, 3, *size)
    value, expected = (
        f(student, teacher) for f in (pairwise_affinity, reference.pairwise_affinity)
    )
    assert_close(value, expected.float())


def test_a_dead_node_does_not_outweigh_the_others():
    student, teacher = torch.randn(2, 1, 3, 4, 4)
    student[..., :2, :2] = 0
    _, (gradient, _) = value_and_gradients(pairwise_affinity, student, teacher)
    assert gradient.isfinite().all()
    assert gradient.norm() < 1e5


def test_pairwise_affinity_builds_no_matrix_of_positions():
    student = torch.randn(1, 8, 64, 64, requires_grad=True)
    teacher = torch.randn(1, 16, 64, 64)
    with LargestTensor() as largest:
        pairwise_affinity(student, teacher, valid=torch.rand(1, 64, 64) > 0.4).backward()
    assert student.grad.abs().amax() > 0
    assert largest.numel == teacher.numel()


def labeled(shape, ignored):
    labels = torch.randint(3, shape)
    return labels.masked_fill(torch.rand(shape) > 0.6, IGNORED) if ignored else labels


def test_intra_class_variation_by_hand():
    # Class 0 has (1, 0) and (0, 1), each of cosine 1/sqrt(2) with their mean (1/2, 1/2); class 4
    # has one position, of cosine 1 with itself. The teacher, of one channel, has 1 everywhere:
    # 2/3 (1 - 1/sqrt(2))^2 = 2/3 (3/2 - sqrt(2)). Ignored is the last position.
    student = torch.tensor([[[[1.0, 0.0, 3.0, 5.0]], [[0.0, 1.0, -2.0, 5.0]]]])
    teacher = torch.tensor([[[[2.0, 5.0, 3.0, -7.0]]]])
    labels = torch.tensor([[[0, 0, 4, IGNORED]]])
    own, total = 1 / sqrt(2), 3 / 2 - sqrt(2)
    assert_close(class_similarity(student, labels, 5), torch.tensor([[[own, own, 1.0, 0.0]]]))
    value = intra_class_variation(student, teacher, labels, 5)
    assert_close(value, torch.tensor(2 / 3 * total))
    value = intra_class_variation(student, teacher, labels, 5, avg_factor=1)
    assert_close(value, torch.tensor(2 * total))


def test_classes_meet_in_their_image_alone():
    # Apart, both positions are their class' mean; in one image they would be opposite.
    maps = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
    labels = torch.zeros(2, 1, 1, dtype=torch.int64)
    assert_close(class_similarity(maps, labels, 1), torch.ones(2, 1, 1))
    in_one_image = class_similarity(maps.reshape(1, 1, 1, 2), labels.reshape(1, 1, 2), 1)
    assert_close(in_one_image, torch.zeros(1, 1, 2))


@pytest.mark.parametrize('ignore_index', [0, -1, 255])
def test_any_index_may_be_ignored(ignore_index):
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    labels = labeled((2, 3, 4), ignored=True)
    renamed = (labels + 1).where(labels != IGNORED, ignore_index)
    value = intra_class_variation(student, teacher, renamed, 4, ignore_index)
    assert_close(value, intra_class_variation(student, teacher, labels, 3))


def test_classes_of_one_position_have_nothing_to_say():
    student, teacher = torch.randn(2, 1, 3, 2, 2)
    labels = torch.arange(4).reshape(1, 2, 2)
    value, (gradient, _) = value_and_gradients(
        lambda s, t: intra_class_variation(s, t, labels, 4), student, teacher
    )
    assert_close(value, torch.tensor(0.0))
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


def test_a_dead_position_does_not_outweigh_the_others():
    student, teacher = torch.randn(2, 1, 3, 2, 2)
    student[..., 0, 0] = 0
    labels = torch.zeros(1, 2, 2, dtype=torch.int64)
    _, (gradient, _) = value_and_gradients(
        lambda s, t: intra_class_variation(s, t, labels, 4), student, teacher
    )
    assert gradient.isfinite().all()
    assert gradient.norm() < 1e5


def test_gradient_flows_through_the_class_means():
    # The first position moves the mean to which the second is compared.
    labels = torch.zeros(1, 1, 2, dtype=torch.int64)
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]).requires_grad_()
    class_similarity(student, labels, 1)[0, 0, 1].backward()
    assert student.grad[..., 0].abs().amax() > 0


@pytest.mark.parametrize('shape', [(2, 8, 10), (1, 4, 5), (2, 1, 4, 5)])
def test_intra_class_variation_refuses_other_labels(shape):
    with pytest.raises(ValueError, match=r'resize the labels first') as error:
        intra_class_variation(
            torch.zeros(2, 3, 4, 5), torch.zeros(2, 6, 4, 5), torch.zeros(shape).long(), 3
        )
    assert str(shape) in str(error.value)
