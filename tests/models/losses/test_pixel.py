from math import log

import pytest
import torch
from torch.testing import assert_close

from mmseg_adm.models.losses import pixel_kl


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
