"""The core of all cross entropies, against the plain one that holds everything at once."""

from math import log, nan

import pytest
import reference
import torch
import torch.nn.functional as F
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models.losses import cross_entropy_sum, labeled_weight, weighted_cross_entropy
from mmseg_adm.models.losses.dense import BANDS
from mmseg_adm.models.memory import peak_bytes

SIZES = [
    ((12, 16), (96, 128)),
    ((13, 17), (97, 129)),  # as heads with align_corners like it
    ((7, 9), (50, 33)),  # no band begins at a row of the logits
    ((24, 16), (24, 16)),
    ((30, 20), (11, 13)),  # logits larger than the labels
    ((1, 1), (5, 4)),
    ((5, 4), (1, 1)),
]


def case(classes, logit_size, label_size, ignored, images=2):
    """Logits, labels and a weight for each label; ignored ones have weight zero."""
    logits = 3 * torch.randn(images, classes, *logit_size)
    labels = torch.randint(classes, (images, *label_size))
    weight = torch.randn(images, *label_size)
    if ignored:
        labels[torch.rand(labels.shape) < 0.3] = 255
    return logits.requires_grad_(), labels, weight * (labels != 255)


def plain(logits, labels, weight, align_corners=False):
    """sum_p w_p CE_p, all at full size."""
    resized = F.interpolate(
        logits.float(), labels.shape[-2:], mode='bilinear', align_corners=align_corners
    )
    return (weight * F.cross_entropy(resized, labels, ignore_index=255, reduction='none')).sum()


def value_and_gradient(loss, logits):
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


@pytest.mark.parametrize('align_corners', [False, True], ids=['centres', 'corners'])
@pytest.mark.parametrize('ignored', [False, True], ids=['labeled', 'ignored'])
@pytest.mark.parametrize('classes', [19, 150])
@pytest.mark.parametrize(('logit_size', 'label_size'), SIZES, ids=str)
def test_value_and_gradient_are_those_of_the_plain_one(
    classes, logit_size, label_size, ignored, align_corners
):
    logits, labels, weight = case(classes, logit_size, label_size, ignored)
    weight /= weight.abs().sum().clamp(min=1)
    found = value_and_gradient(cross_entropy_sum(logits, labels, weight, align_corners), logits)
    expected = value_and_gradient(plain(logits, labels, weight, align_corners), logits)
    assert_close(found[0], expected[0], rtol=1e-5, atol=1e-5)
    assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6)
    assert expected[1].abs().max() > 1e-4


@pytest.mark.parametrize('align_corners', [False, True], ids=['centres', 'corners'])
def test_bands_are_interpolated_as_the_whole(align_corners):
    # With one class against a constant zero the loss of a pixel tells its logit to the last digit.
    height, width = 90, 70
    logits = torch.rand(1, 1, 11, 9)
    whole = F.interpolate(logits, (height, width), mode='bilinear', align_corners=align_corners)
    pair = torch.cat([torch.zeros_like(logits), logits], dim=1)
    labels = torch.zeros(1, height, width, dtype=torch.int64)
    for row in (0, 1, height // BANDS - 1, height // BANDS, 41, height - 1):
        for column in (0, 33, width - 1):
            weight = torch.zeros(1, height, width)
            weight[0, row, column] = 1
            found = cross_entropy_sum(pair, labels, weight, align_corners)
            assert_close(found, F.softplus(whole[0, 0, row, column]), rtol=0, atol=1e-6)


def test_align_corners_makes_a_difference():
    logits, labels, weight = case(19, (12, 16), (96, 128), ignored=False)
    values = [cross_entropy_sum(logits, labels, weight, each) for each in (False, True)]
    assert (values[0] - values[1]).abs() > 1


@pytest.mark.parametrize('images', [1, 4])
@pytest.mark.parametrize(('classes', 'size'), [(19, (128, 256)), (150, (128, 128))], ids=str)
def test_half_of_the_logits_at_full_size_is_never_held(images, classes, size):
    logits, labels, _ = case(classes, (size[0] // 8, size[1] // 8), size, True, images)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'  # as what measures chooses
    logits, labels = logits.detach().to(device).requires_grad_(), labels.to(device)
    weight = torch.rand(images, size[0] // 8, size[1] // 8, device=device)
    full_size = 4 * images * classes * size[0] * size[1]

    def peak(loss):
        return peak_bytes(lambda: loss().backward()) / full_size

    assert peak(lambda: weighted_cross_entropy(logits, labels, weight)) <= 0.5
    # The plain one holds the logits, their softmax and its gradient.
    assert peak(lambda: plain(logits, labels, torch.ones_like(labels))) > 2


def test_nothing_of_full_size_waits_for_the_backward_pass():
    logits, labels, weight = case(19, (16, 32), (128, 256), ignored=True, images=1)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = cross_entropy_sum(logits, labels, weight)
    loss.backward()
    assert sum(kept) <= 2 * logits.numel()


def test_without_gradient_the_value_alone_is_computed():
    logits, labels, weight = case(19, (12, 16), (96, 128), ignored=True)
    expected = cross_entropy_sum(logits, labels, weight)
    with torch.no_grad():
        assert_close(cross_entropy_sum(logits, labels, weight), expected.detach())
    value = cross_entropy_sum(logits.detach(), labels, weight)
    assert not value.requires_grad
    assert_close(value, expected.detach())


def test_a_size_first_seen_in_inference_mode_can_be_trained_later():
    logits, labels, weight = case(3, (3, 5), (31, 37), ignored=False)
    with torch.inference_mode():
        cross_entropy_sum(logits.detach(), labels, weight)
    cross_entropy_sum(logits, labels, weight).backward()
    assert logits.grad.abs().max() > 0


def test_the_gradient_follows_the_scale_of_the_loss():
    logits, labels, weight = case(5, (6, 8), (48, 64), ignored=True)
    once = torch.autograd.grad(cross_entropy_sum(logits, labels, weight), logits)[0]
    scaled = torch.autograd.grad(-7 * cross_entropy_sum(logits, labels, weight), logits)[0]
    assert_close(scaled, -7 * once)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, labels, weight = case(19, (12, 16), (96, 128), ignored=True)
    half = logits.detach().to(dtype).requires_grad_()
    full = half.detach().float().requires_grad_()
    with torch.autocast('cpu', dtype):
        value, gradient = value_and_gradient(cross_entropy_sum(half, labels, weight), half)
    expected, expected_gradient = value_and_gradient(cross_entropy_sum(full, labels, weight), full)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient.to(dtype))


def test_what_does_not_count_may_hold_anything():
    logits, labels, weight = case(5, (24, 16), (24, 16), ignored=True)
    expected = cross_entropy_sum(logits, labels, weight).detach()
    broken = logits.detach().clone()
    broken[:, 0][labels == 255] = -torch.inf
    labels = torch.where(labels == 255, -100, labels)
    assert_close(cross_entropy_sum(broken, labels, weight), expected)


def test_weights_of_zero_give_a_differentiable_zero():
    logits, labels, weight = case(5, (3, 4), (24, 32), ignored=False)
    loss = cross_entropy_sum(logits, labels, 0 * weight)
    loss.backward()
    assert loss == 0
    assert logits.grad.eq(0).all()


def test_a_label_without_a_class_that_counts_is_an_error():
    logits, labels, weight = case(5, (3, 4), (24, 32), ignored=False)
    labels[0, 0, 0] = 5
    with pytest.raises((IndexError, RuntimeError), match='out of'):
        cross_entropy_sum(logits, labels, weight)


@pytest.mark.parametrize(
    ('logits', 'labels', 'weight', 'message'),
    [
        ((2, 3, 4), (2, 8, 8), (2, 8, 8), 'logits (B, K, h, w) for labels (B, H, W), got'),
        ((1, 3, 4, 4), (2, 8, 8), (2, 8, 8), 'got (1, 3, 4, 4) and (2, 8, 8)'),
        ((2, 3, 4, 4), (2, 8, 8), (2, 4, 4), 'one weight for each label, got (2, 4, 4)'),
    ],
)
def test_other_shapes_are_refused(logits, labels, weight, message):
    with pytest.raises(ValueError) as error:
        cross_entropy_sum(
            torch.zeros(logits), torch.zeros(labels, dtype=torch.int64), torch.ones(weight)
        )
    assert message in str(error.value)


@pytest.mark.parametrize('ignored', [False, True], ids=['labeled', 'ignored'])
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
    divisor = labeled_weight(weight, labels, class_weight=class_weight).sum()
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
    # (1 * ln 2 + 3 * ln(4/3)) / (1 + 3); the weight 9 stands on nothing labeled.
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


def test_a_mean_of_weights_of_zero_is_a_differentiable_zero():
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
        ((2, 3, 4, 5), (2, 1, 4, 5), (2, 4, 5), 'got (2, 3, 4, 5) and (2, 1, 4, 5)'),
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


def test_labeled_weight_by_hand():
    # (0, 1) at twice the width is (0, 1/4, 3/4, 1); the second pixel carries no label.
    labels, weight = torch.tensor([[[1, 7, 0, 1]]]), torch.tensor([[[0.0, 1.0]]])
    expected = torch.tensor([[[0.0, 0.0, 0.75, 1.0]]])
    assert_close(labeled_weight(weight, labels, ignore_index=7), expected)


def test_labeled_weight_sums_to_the_divisor():
    logits, labels, weight = (
        torch.randn(2, 3, 2, 3),
        torch.randint(3, (2, 4, 6)),
        torch.rand(2, 2, 3),
    )
    labels[:, 1:3] = 255
    divisor = labeled_weight(weight, labels).sum()
    assert_close(
        weighted_cross_entropy(logits, labels, weight, avg_factor=divisor),
        weighted_cross_entropy(logits, labels, weight),
    )
    assert_close(
        weighted_cross_entropy(logits, labels, weight, avg_factor=2 * divisor),
        weighted_cross_entropy(logits, labels, weight) / 2,
    )


@pytest.mark.parametrize('shape', [(1, 4, 5), (2, 1, 4, 5)])
def test_labeled_weight_refuses_other_shapes(shape):
    with pytest.raises(ValueError, match='weight'):
        labeled_weight(torch.ones(shape), torch.zeros(2, 4, 5, dtype=torch.int64))


def test_labeled_weight_is_float32_without_gradient():
    weight = torch.rand(2, 2, 3, dtype=torch.float16, requires_grad=True)
    labels = torch.zeros(2, 4, 6, dtype=torch.int64)
    resized = labeled_weight(weight, labels)
    assert not resized.requires_grad
    assert_close(resized, labeled_weight(weight.float(), labels))


def test_weights_that_are_no_number_end_in_one_and_not_in_an_index_error():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.tensor([[[0, 255], [2, 1]]])
    loss = weighted_cross_entropy(logits, labels, torch.full((1, 2, 2), nan))
    assert loss.isnan()
    loss.backward()
    assert logits.grad.isnan().all()
