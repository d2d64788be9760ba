from math import log

import pytest
import reference
import torch
import torch.nn.functional as F
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models.losses import labelled_weight, pixel_kl, weighted_cross_entropy


@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_pixel_kl_by_hand(tau):
    # q = (1/2, 1/2) at both pixels; p = (3/4, 1/4) at the first, (7/8, 1/8) at the second.
    # KL_0 = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2
    # KL_1 = 7/8 ln(7/4) + 1/8 ln(1/4) = 7/8 ln 7 - 2 ln 2
    # Dividing logits tau times as large by tau gives the same p: only tau^2 remains.
    student = torch.zeros(1, 2, 1, 2)
    teacher = tau * torch.tensor([[[[log(3), log(7)]], [[0.0, 0.0]]]])
    first = 3 / 4 * log(3) - log(2)
    second = 7 / 8 * log(7) - 2 * log(2)
    mean = tau**2 * (first + second) / 2
    assert_close(pixel_kl(student, teacher, tau=tau), torch.tensor(mean))
    valid = torch.tensor([[[False, True]]])
    assert_close(pixel_kl(student, teacher, tau, valid), torch.tensor(tau**2 * second))


def test_pixel_kl_ignores_a_constant_per_pixel():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    shifted = student + torch.randn(2, 1, 3, 4)
    assert_close(pixel_kl(shifted, teacher), pixel_kl(student, teacher))


def test_pixel_kl_weighted_by_hand():
    # As above: KL_0 = 3/4 ln 3 - ln 2 and KL_1 = 7/8 ln 7 - 2 ln 2, now one to three.
    student = torch.zeros(1, 2, 1, 2)
    teacher = torch.tensor([[[[log(3), log(7)]], [[0.0, 0.0]]]])
    mean = (3 / 4 * log(3) - log(2) + 3 * (7 / 8 * log(7) - 2 * log(2))) / 4
    value = pixel_kl(student, teacher, weight=torch.tensor([[[1.0, 3.0]]]))
    assert_close(value, torch.tensor(mean))


@pytest.mark.parametrize('ignored', [False, True], ids=['labelled', 'ignored'])
@pytest.mark.parametrize(
    ('logit_size', 'weight_size', 'label_size'),
    [((3, 4), (3, 4), (3, 4)), ((2, 3), (3, 2), (4, 7)), ((4, 5), (2, 5), (3, 2))],
)
def test_weighted_cross_entropy_matches_loop_reference(
    logit_size, weight_size, label_size, ignored
):
    logits, weight = torch.randn(2, 3, *logit_size), torch.rand(2, *weight_size)
    labels = torch.randint(3, (2, *label_size))
    if ignored:
        labels[torch.rand(labels.shape) > 0.6] = 255
    value, gradients = value_and_gradients(
        lambda z, w: weighted_cross_entropy(z, labels, w), logits, weight
    )
    expected, expected_gradients = value_and_gradients(
        lambda z, w: reference.weighted_cross_entropy(z, labels, w), logits, weight
    )
    assert_close(value, expected.float())
    assert_close(gradients, expected_gradients)


def test_class_weights_match_loop_reference():
    logits, weight, class_weight = torch.randn(2, 3, 2, 3), torch.rand(2, 3, 2), torch.rand(3)
    labels = torch.randint(3, (2, 4, 7))
    labels[torch.rand(labels.shape) > 0.6] = 255
    value, gradients = value_and_gradients(
        lambda z: weighted_cross_entropy(z, labels, weight, class_weight=class_weight), logits
    )
    expected, expected_gradients = value_and_gradients(
        lambda z: reference.weighted_cross_entropy(z, labels, weight, class_weight=class_weight),
        logits,
    )
    assert_close(value, expected.float())
    assert_close(gradients, expected_gradients)
    divisor = labelled_weight(weight, labels, class_weight=class_weight).sum()
    doubled = weighted_cross_entropy(
        logits, labels, weight, avg_factor=2 * divisor, class_weight=class_weight
    )
    assert_close(2 * doubled, value)


@pytest.mark.parametrize('ignore_index', [255, 0, -100])
def test_class_weights_of_equal_pixels_are_those_of_pytorch(ignore_index):
    logits, class_weight = torch.randn(2, 3, 4, 6), torch.rand(3)
    labels = torch.randint(3, (2, 4, 6))
    labels[:, 0] = ignore_index
    value = weighted_cross_entropy(
        logits, labels, torch.ones(2, 4, 6), ignore_index, class_weight=class_weight
    )
    expected = F.cross_entropy(logits, labels, class_weight, ignore_index=ignore_index)
    assert_close(value, expected)


def test_weighted_cross_entropy_by_hand():
    # softmax = (1/2, 1/2), (3/4, 1/4) and (1/2, 1/2); labels 1, 0 and ignored.
    # (1 * ln 2 + 3 * ln(4/3)) / (1 + 3); the weight 9 stands on nothing labelled.
    logits = torch.tensor([[[[0.0, log(3), 5.0]], [[0.0, 0.0, 5.0]]]])
    labels, weight = torch.tensor([[[1, 0, 255]]]), torch.tensor([[[1.0, 3.0, 9.0]]])
    expected = torch.tensor((log(2) + 3 * log(4 / 3)) / 4)
    assert_close(weighted_cross_entropy(logits, labels, weight), expected)


@pytest.mark.parametrize('ignore_index', [255, 0])
def test_equal_weights_give_the_plain_cross_entropy(ignore_index):
    logits, labels = torch.randn(2, 3, 2, 3), torch.randint(3, (2, 4, 6))
    labels[:, 0] = ignore_index
    value, (gradient,) = value_and_gradients(
        lambda z: weighted_cross_entropy(z, labels, torch.ones(2, 2, 3), ignore_index), logits
    )
    expected, (expected_gradient,) = value_and_gradients(
        lambda z: F.cross_entropy(
            F.interpolate(z, (4, 6), mode='bilinear', align_corners=False),
            labels,
            ignore_index=ignore_index,
        ),
        logits,
    )
    assert_close(value, expected)
    assert_close(gradient, expected_gradient)


@pytest.mark.parametrize('factor', [1e-3, 7.0, 1e3])
def test_scaling_the_weights_changes_nothing(factor):
    logits, labels, weight = (
        torch.randn(2, 3, 2, 3),
        torch.randint(3, (2, 4, 6)),
        torch.rand(2, 2, 3),
    )
    assert_close(
        weighted_cross_entropy(logits, labels, factor * weight),
        weighted_cross_entropy(logits, labels, weight),
    )


def test_weights_of_zero_give_a_differentiable_zero():
    value, (gradient,) = value_and_gradients(
        lambda z: weighted_cross_entropy(z, torch.zeros(2, 4, 6).long(), torch.zeros(2, 2, 3)),
        torch.randn(2, 3, 2, 3),
    )
    assert value == 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize(
    ('logits', 'labels', 'weight', 'message'),
    [
        ((2, 3, 4), (2, 4, 5), (2, 4, 5), 'logits (B, K, h, w) for labels (B, H, W), got'),
        ((1, 3, 4, 5), (2, 4, 5), (2, 4, 5), 'got (1, 3, 4, 5) and (2, 4, 5)'),
        ((2, 3, 4, 5), (2, 1, 4, 5), (2, 4, 5), 'got (2, 4, 5) and (2, 1, 4, 5)'),
        ((2, 3, 4, 5), (2, 4, 5), (2, 1, 4, 5), 'weight (B, h, w) for labels (B, H, W)'),
        ((2, 3, 4, 5), (2, 4, 5), (1, 4, 5), 'got (1, 4, 5) and (2, 4, 5)'),
    ],
)
def test_weighted_cross_entropy_refuses_other_shapes(logits, labels, weight, message):
    with pytest.raises(ValueError) as error:
        weighted_cross_entropy(
            torch.zeros(logits), torch.zeros(labels, dtype=torch.int64), torch.ones(weight)
        )
    assert message in str(error.value)


def test_labelled_weight_by_hand():
    # (0, 1) at twice the width is (0, 1/4, 3/4, 1); the second pixel carries no label.
    labels, weight = torch.tensor([[[1, 7, 0, 1]]]), torch.tensor([[[0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.0, 0.75, 1.0]]])
    assert_close(labelled_weight(weight, labels, ignore_index=7), expected)


def test_labelled_weight_sums_to_the_divisor():
    logits, labels, weight = (
        torch.randn(2, 3, 2, 3),
        torch.randint(3, (2, 4, 6)),
        torch.rand(2, 2, 3),
    )
    labels[:, 1:3] = 255
    divisor = labelled_weight(weight, labels).sum()
    assert_close(
        weighted_cross_entropy(logits, labels, weight, avg_factor=divisor),
        weighted_cross_entropy(logits, labels, weight),
    )
    assert_close(
        weighted_cross_entropy(logits, labels, weight, avg_factor=2 * divisor),
        weighted_cross_entropy(logits, labels, weight) / 2,
    )


@pytest.mark.parametrize('shape', [(1, 4, 5), (2, 1, 4, 5)])
def test_labelled_weight_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match='weight'):
        labelled_weight(torch.ones(shape), torch.zeros(2, 4, 5, dtype=torch.int64))


def test_labelled_weight_is_float32_without_gradient():
    weight = torch.rand(2, 2, 3, dtype=torch.float16, requires_grad=True)
    labels = torch.zeros(2, 4, 6, dtype=torch.int64)
    resized = labelled_weight(weight, labels)
    assert not resized.requires_grad
    assert_close(resized, labelled_weight(weight.float(), labels))
