import torch
from torch.testing import assert_close

from mmseg_adm.models.losses import feature_error


def test_by_hand():
    # ((1 - 3)^2 + (2 - 2)^2) / 2 = 2 and ((0 - 1)^2 + (1 + 2)^2) / 2 = 5.
    student = torch.tensor([[[[1.0, 0.0]], [[2.0, 1.0]]]])
    teacher = torch.tensor([[[[3.0, 1.0]], [[2.0, -2.0]]]])
    assert_close(feature_error(student, teacher), torch.tensor(3.5))
    valid = torch.tensor([[[True, False]]])
    assert_close(feature_error(student, teacher, valid), torch.tensor(2.0))
    assert_close(feature_error(student, teacher, avg_factor=14), torch.tensor(0.5))


def test_is_the_plain_mean_squared_error_of_maps_without_a_mask():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    expected = torch.nn.functional.mse_loss(student, teacher)
    assert_close(feature_error(student, teacher), expected)


def test_doubling_the_channels_changes_nothing():
    student, teacher = torch.randn(2, 2, 3, 3, 4)
    doubled = [maps.repeat(1, 2, 1, 1) for maps in (student, teacher)]
    assert_close(feature_error(*doubled), feature_error(student, teacher))
