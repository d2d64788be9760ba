from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
import reference
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


@pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])
@pytest.mark.parametrize('tau', [1.0, 2.5])
@pytest.mark.parametrize('loss', LOSSES)
def test_matches_loop_reference(loss, tau, masked):
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    valid = torch.rand(2, 3, 4) > 0.4 if masked else None
    value, gradients = value_and_gradients(partial(loss, tau=tau, valid=valid), student, teacher)
    expected, expected_gradients = value_and_gradients(
        partial(getattr(reference, loss.__name__), tau=tau, valid=valid), student, teacher
    )
    assert_close(value, expected.float())
    assert_close(gradients, expected_gradients)


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


@pytest.mark.parametrize('tau', [1.0, 2.5])
@pytest.mark.parametrize('loss', LOSSES)
def test_equal_logits_give_zero(loss, tau):
    logits = torch.randn(2, 3, 3, 4)
    value, (gradient, _) = value_and_gradients(partial(loss, tau=tau), logits, logits)
    assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-5)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


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


def intra_class(valid):
    return lambda student, teacher: intra_class_correlation(student, teacher, valid=valid)


def test_intra_class_of_nothing_is_a_differentiable_zero():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    nothing = torch.zeros(2, 3, 4, dtype=torch.bool)
    with torch.autograd.set_detect_anomaly(True):
        value, gradients = value_and_gradients(intra_class(nothing), student, teacher)
    assert value == 0
    assert all(gradient.eq(0).all() for gradient in gradients)


@pytest.mark.parametrize('side', [0, 1], ids=['student', 'teacher'])
def test_intra_class_teaches_the_student_from_valid_positions_alone(side):
    maps, valid = list(torch.randn(2, 2, 3, 3, 4)), torch.rand(2, 3, 4) > 0.4
    expected, expected_gradients = value_and_gradients(intra_class(valid), *maps)
    assert expected_gradients[0].abs().amax(dim=1)[~valid].eq(0).all()
    assert expected_gradients[1].eq(0).all()
    maps[side] = torch.where(valid[:, None], maps[side], 1e4 * torch.randn_like(maps[side]))
    value, gradients = value_and_gradients(intra_class(valid), *maps)
    assert_close(value, expected)
    assert_close(gradients, expected_gradients)


@pytest.mark.parametrize('autocast', [False, True], ids=['plain', 'autocast'])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_intra_class_of_half_precision_is_computed_in_float32(dtype, autocast):
    maps, valid = torch.randn(2, 1, 3, 17, 19), torch.rand(1, 17, 19) > 0.1
    half = maps.to(dtype)
    expected, (expected_gradient, _) = value_and_gradients(intra_class(valid), *half.float())
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        value, (gradient, _) = value_and_gradients(intra_class(valid), *half)
    assert_close(value, expected)
    assert_close(gradient, expected_gradient.to(dtype))
    assert_close(value, intra_class(valid)(*maps), rtol=0.02, atol=0.02)


@pytest.mark.parametrize('scale', [30.0, 6e4])
def test_intra_class_of_certain_predictions_is_finite(scale):
    student, teacher = scale * torch.randn(2, 2, 3, 3, 4).sign()
    value, gradients = value_and_gradients(intra_class(None), student, teacher)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_intra_class_of_twice_the_batch_or_resolution_is_the_same():
    batch = torch.randn(2, 3, 3, 4), torch.randn(2, 3, 3, 4), torch.rand(2, 3, 4) > 0.4
    expected = intra_class(batch[2])(*batch[:2])
    for larger in (
        [torch.cat([x, x]) for x in batch],
        [x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2) for x in batch],
    ):
        assert_close(intra_class(larger[2])(*larger[:2]), expected)


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
