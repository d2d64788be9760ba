"""What every loss must do, whichever formula it is."""

import inspect

import pytest
import torch
from loss_cases import CASES
from reference import value_and_gradients
from torch.testing import assert_close

from mmseg_adm.models import losses

# They divide, and pass no gradient: tested in their own file, as is what all of them use.
WITHOUT_GRADIENT = {'distribution_distance', 'label_distance'}
UNIT = {'weighted_mean'}


def cases(**attributes):
    """Those that have all of these, or a value at all where the attribute is ``...``."""
    return [
        name
        for name, case in CASES.items()
        if all(
            getattr(case, key) is not None if value is ... else getattr(case, key) == value
            for key, value in attributes.items()
        )
    ]


for_each = pytest.mark.parametrize('name', CASES)


@pytest.fixture
def batch():
    """Four images with 15, 9, 1 and no valid positions of 15."""
    student, teacher = torch.randn(2, 4, 3, 3, 5)
    valid = torch.arange(15).reshape(1, 3, 5) < torch.tensor([15, 9, 1, 0]).reshape(4, 1, 1)
    return student, teacher, valid


def evaluate(name, student, teacher, valid, avg_factor=None):
    """Value and gradients of student and teacher."""
    function = CASES[name].function
    return value_and_gradients(lambda s, t: function(s, t, valid, avg_factor), student, teacher)


def test_every_loss_has_a_row():
    divides = {
        name
        for name in losses.__all__
        if 'avg_factor' in inspect.signature(getattr(losses, name)).parameters
    }
    rows = {name.partition(',')[0] for name, case in CASES.items() if case.divisor is not None}
    assert divides == rows | WITHOUT_GRADIENT | UNIT


@pytest.mark.parametrize('masked', [False, True], ids=['all', 'masked'])
@for_each
def test_matches_loop_reference(name, batch, masked):
    student, teacher, valid = batch
    valid = valid if masked else None
    value, gradients = evaluate(name, student, teacher, valid)
    expected, expected_gradients = value_and_gradients(
        lambda s, t: CASES[name].expected(s, t, valid), student, teacher
    )
    assert_close(value, expected.float())
    assert_close(gradients, expected_gradients)


@for_each
def test_gradient_reaches_the_labeled_positions_of_the_learner_alone(name, batch):
    student, teacher, valid = batch
    learner = CASES[name].learner
    _, gradients = evaluate(name, student, teacher, valid)
    reached = gradients[learner].abs().amax(dim=1)
    assert reached[:2].amax(dim=(1, 2)).gt(0).all()
    assert reached[~valid].eq(0).all()
    assert gradients[1 - learner].eq(0).all()


@pytest.mark.parametrize('name', cases(divergence=True))
def test_equal_maps_give_zero(name, batch):
    maps, _, valid = batch
    value, (gradient, _) = evaluate(name, maps, maps, valid)
    assert_close(value, torch.tensor(0.0), rtol=0, atol=1e-5)
    assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-6)


@for_each
def test_nothing_valid_gives_a_differentiable_zero(name, batch):
    student, teacher, valid = batch
    for avg_factor in (None, torch.tensor(0.0)):
        with torch.autograd.set_detect_anomaly(True):
            value, gradients = evaluate(name, student, teacher, valid & False, avg_factor)
        assert value == 0
        assert all(gradient.eq(0).all() for gradient in gradients)


@for_each
def test_ignored_positions_may_hold_anything(name, batch):
    *maps, valid = batch
    expected, expected_gradients = evaluate(name, *maps, valid)
    maps = [torch.where(valid[:, None], own, 1e4 * torch.randn_like(own)) for own in maps]
    value, gradients = evaluate(name, *maps, valid)
    assert_close(value, expected)
    assert_close(gradients, expected_gradients)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
@pytest.mark.parametrize('name', cases(masks_nan=...))
def test_ignored_positions_may_hold_no_number(name, batch, number):
    *maps, valid = batch
    expected, expected_gradients = evaluate(name, *maps, valid)
    maps = [own.masked_fill(~valid[:, None], number) for own in maps]
    value, gradients = evaluate(name, *maps, valid)
    assert_close(value, expected)
    if CASES[name].masks_nan == 'gradient':
        assert_close(gradients[0], expected_gradients[0])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@for_each
def test_half_precision_is_computed_in_float32(name, dtype):
    # 323 positions: bfloat16 has 322 and 324.
    maps = torch.randn(2, 1, 3, 17, 19).to(dtype)
    function = CASES[name].function

    def forward(*pair):
        # The forward pass alone, as in training.
        with torch.autocast('cpu', torch.bfloat16):
            return function(*pair, None, None)

    expected, expected_gradients = evaluate(name, *maps.float(), None)
    value, gradients = value_and_gradients(forward, *maps)
    assert_close(value, expected)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        assert_close(gradient, expected_gradient.to(dtype))


@for_each
def test_large_values_stay_finite(name, batch):
    *maps, valid = batch
    value, gradients = evaluate(name, *(6e4 * own.sign().half() for own in maps), valid)
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@for_each
def test_twice_the_batch_or_resolution_changes_nothing(name, batch):
    """Each position becomes two, or four.

    In the mean over positions they count as often on both sides of the fraction. In the
    softmax over positions each gets p/4 and q/4: 4 * p/4 * log((p/4) / (q/4)) = p log(p/q).
    """
    case = CASES[name]
    expected = case.function(*batch, None)
    assert_close(case.function(*(torch.cat([x, x]) for x in batch), None), expected)
    if case.any_size:
        larger = [x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2) for x in batch]
        assert_close(case.function(*larger, None), expected)


@pytest.mark.parametrize('name', cases(divisor=...))
def test_avg_factor_joins_two_ranks(name, batch):
    """One rank has image 0 and the other the rest; DDP averages their gradients."""
    case = CASES[name]
    expected, expected_gradients = evaluate(name, *batch)
    ranks = [[x[:1] for x in batch], [x[1:] for x in batch]]
    divisors = [torch.as_tensor(case.divisor(*rank)).float() for rank in ranks]
    assert divisors[0] != divisors[1]
    results = [evaluate(name, *rank, sum(divisors) / 2) for rank in ranks]
    assert_close((results[0][0] + results[1][0]) / 2, expected)
    gradients = torch.cat([gradient[case.learner] for _, gradient in results]) / 2
    assert_close(gradients, expected_gradients[case.learner])
