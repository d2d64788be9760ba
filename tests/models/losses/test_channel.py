from math import log

import pytest
import torch
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models.losses import channel_wise_divergence


@pytest.mark.parametrize('tau', [1.0, 2.0])
def test_by_hand(tau):
    # q = (1/2, 1/2) over the two positions of both channels; p = (3/4, 1/4) in the first
    # channel, (7/8, 1/8) in the second.
    # KL_0 = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2
    # KL_1 = 7/8 ln(7/4) + 1/8 ln(1/4) = 7/8 ln 7 - 2 ln 2
    # Divided by B*K = 2; dividing maps tau times as large by tau leaves tau^2 only.
    student = torch.zeros(1, 2, 1, 2)
    teacher = tau * torch.tensor([[[[log(3), 0.0]], [[log(7), 0.0]]]])
    expected = tau**2 * (3 / 4 * log(3) - log(2) + 7 / 8 * log(7) - 2 * log(2)) / 2
    assert_close(channel_wise_divergence(student, teacher, tau=tau), torch.tensor(expected))


def test_masked_position_by_hand():
    # As above in the first two positions; the third would change both softmaxes.
    student = torch.tensor([[[[0.0, 0.0, 9.0]]]])
    teacher = torch.tensor([[[[log(3), 0.0, 5.0]]]])
    valid = torch.tensor([[[True, True, False]]])
    expected = torch.tensor(3 / 4 * log(3) - log(2))
    assert_close(channel_wise_divergence(student, teacher, valid=valid), expected)


def test_a_weight_counts_positions():
    # The first column three times, the second once, the third not at all.
    student, teacher = torch.randn(2, 2, 3, 4, 3)
    weight = torch.tensor([0.3, 0.1, 0.0]).expand(2, 4, 3)
    times = [0, 0, 0, 1]
    assert_close(
        channel_wise_divergence(student, teacher, weight=weight),
        channel_wise_divergence(student[..., times], teacher[..., times]),
    )


def test_one_valid_position_has_nothing_to_say():
    student, teacher = torch.randn(2, 1, 3, 2, 2)
    valid = torch.tensor([[[False, True], [False, False]]])
    value, (gradient, _) = value_and_gradients(
        lambda s, t: channel_wise_divergence(s, t, valid=valid), student, teacher
    )
    assert value == 0
    assert gradient.eq(0).all()


@pytest.mark.parametrize('constant', [-1024.0, 1024.0])
def test_ignores_a_constant_per_channel(constant):
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    valid = torch.rand(2, 3, 4) > 0.4
    shifted = student + constant * torch.arange(3).reshape(1, 3, 1, 1)
    assert_close(
        channel_wise_divergence(shifted, teacher, valid=valid),
        channel_wise_divergence(student, teacher, valid=valid),
        rtol=1e-3,
        atol=0,
    )
