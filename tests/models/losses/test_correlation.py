from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import torch
import torch.nn.functional as F
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models.losses import inter_class_correlation, intra_class_correlation

LOSSES = [inter_class_correlation, intra_class_correlation]


def logits_of(*distributions):
    """Logits (1, K, 1, w) with these softmaxes over the classes at the w positions."""
    return torch.tensor(distributions).log().T[None, :, None]


def on_two_ranks(function, *halves):
    """``function(all_reduce, *half)`` on two threads that add their sums up."""
    barrier, local = Barrier(2, timeout=60), [None, None]

    def run(rank):
        def all_reduce(values):
            local[rank] = values
            barrier.wait()
            total = local[0] + local[1]
            barrier.wait()
            return total

        return function(all_reduce, *halves[rank])

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run, range(2)))


@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_inter_class_by_hand(tau):
    # (3, 2, 1)/6 has (1, 0, -1)/6 about its mean, (1, 2, 3)/6 the opposite: rho = -1. With
    # (3, 1, 2)/6, that is (1, -1, 0)/6: rho = 1/2. The mean of 2 and 1/2 is 5/4; of the second
    # alone 1/2. Dividing logits tau times as large by tau leaves tau^2 only.
    student = tau * logits_of([3 / 6, 2 / 6, 1 / 6], [3 / 6, 2 / 6, 1 / 6])
    teacher = tau * logits_of([1 / 6, 2 / 6, 3 / 6], [3 / 6, 1 / 6, 2 / 6])
    assert_close(inter_class_correlation(student, teacher, tau), torch.tensor(tau**2 * 5 / 4))
    valid = torch.tensor([[[False, True]]])
    value = inter_class_correlation(student, teacher, tau, valid)
    assert_close(value, torch.tensor(tau**2 / 2))
    value = inter_class_correlation(student, teacher, tau, avg_factor=5)
    assert_close(value, torch.tensor(tau**2 / 2))


@pytest.mark.parametrize('images', [1, 3])
@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_intra_class_by_hand(tau, images):
    # Over three positions, of one image or of three, the first class has (1, 2, 3)/4 and
    # (1, 3, 2)/4, about the mean (-1, 0, 1)/4 and (-1, 1, 0)/4: rho = 1/2, and so has the second,
    # which is one minus it.
    student = tau * logits_of([1 / 4, 3 / 4], [2 / 4, 2 / 4], [3 / 4, 1 / 4])
    teacher = tau * logits_of([1 / 4, 3 / 4], [3 / 4, 1 / 4], [2 / 4, 2 / 4])
    student, teacher = (
        logits.permute(3, 1, 2, 0) if images == 3 else logits for logits in (student, teacher)
    )
    assert_close(intra_class_correlation(student, teacher, tau), torch.tensor(tau**2 / 2))


def test_intra_class_of_masked_positions_by_hand():
    # Without the third position two remain, which both increase.
    student = logits_of([1 / 4, 3 / 4], [2 / 4, 2 / 4], [3 / 4, 1 / 4])
    teacher = logits_of([1 / 4, 3 / 4], [3 / 4, 1 / 4], [2 / 4, 2 / 4])
    value = intra_class_correlation(student, teacher, valid=torch.tensor([[[True, True, False]]]))
    assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize('loss', LOSSES)
def test_ignores_a_constant_per_pixel(loss):
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    shifted = student + torch.randn(2, 1, 3, 4)
    assert_close(loss(shifted, teacher), loss(student, teacher))


def test_inter_class_asks_for_the_same_order_only():
    # p and 1/3 + (p - 1/3) / 2 are perfectly correlated.
    teacher = torch.tensor([0.7, 0.2, 0.1])
    student = (1 / 3 + (teacher - 1 / 3) / 2).tolist()
    value = inter_class_correlation(logits_of(student), logits_of(teacher.tolist()))
    assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize('classes', [1, 3])
@pytest.mark.parametrize('loss', LOSSES)
def test_without_variance_nothing_correlates(loss, classes):
    # Also not the rounding errors about the mean.
    flat = torch.zeros(2, classes, 3, 4)
    value, (gradient, _) = value_and_gradients(loss, flat, flat)
    assert_close(value, torch.tensor(1.0), rtol=0, atol=0.01)
    assert gradient.isfinite().all()


def test_intra_class_of_one_position_passes_no_gradient():
    student, teacher = torch.randn(2, 2, 3, 2, 2)
    valid = torch.zeros(2, 2, 2, dtype=torch.bool)
    valid[1, 0, 1] = True
    value, (gradient, _) = value_and_gradients(
        partial(intra_class_correlation, valid=valid), student, teacher
    )
    assert_close(value, torch.tensor(1.0))
    assert_close(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])
def test_intra_class_joins_two_ranks(masked):
    student, teacher = torch.randn(2, 3, 3, 3, 4)
    valid = torch.rand(3, 3, 4) > 0.4 if masked else torch.ones(3, 3, 4, dtype=torch.bool)
    expected, (expected_gradient, _) = value_and_gradients(
        partial(intra_class_correlation, tau=2.0, valid=valid), student, teacher
    )
    leaf = student.clone().requires_grad_()
    values = on_two_ranks(
        lambda add, s, t, v: intra_class_correlation(s, t, 2.0, v, all_reduce=add),
        (leaf[:1], teacher[:1], valid[:1]),
        (leaf[1:], teacher[1:], valid[1:]),
    )
    assert_close(values, [expected, expected])
    values[0].backward()
    assert_close(leaf.grad, expected_gradient)


def test_intra_class_counts_a_rank_with_nothing_valid():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[1] = False
    values = on_two_ranks(
        lambda add, s, t, v: intra_class_correlation(s, t, valid=v, all_reduce=add),
        (student[:1], teacher[:1], valid[:1]),
        (student[1:], teacher[1:], valid[1:]),
    )
    expected = intra_class_correlation(student[:1], teacher[:1])
    assert_close(values, [expected, expected])


def test_classes_that_are_nowhere_correlate_with_themselves():
    # Confident logits: most classes have a probability below 1e-8 at every position.
    logits = torch.randn(2, 150, 4, 5)
    logits += 20 * F.one_hot(torch.randint(3, (2, 4, 5)), 150).permute(0, 3, 1, 2)
    for loss in LOSSES:
        value, (gradient, _) = value_and_gradients(loss, logits, logits.clone())
        assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-3)
        assert gradient.abs().max() < 1e-3


@pytest.mark.parametrize('loss', LOSSES)
def test_a_constant_student_does_not_outweigh_everything(loss):
    student, teacher = torch.zeros(2, 5, 4, 5), torch.randn(2, 5, 4, 5)
    _, (gradient, _) = value_and_gradients(loss, student, teacher)
    assert gradient.isfinite().all()
    assert gradient.norm() < 1e3
