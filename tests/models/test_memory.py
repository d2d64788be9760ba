"""The peak of a step against steps whose peak is known."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmseg_adm.models.memory import peak_bytes, state_bytes

pytestmark = pytest.mark.core

NUMBERS = 100_000
SIZE = 4 * NUMBERS
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
# CUDA's allocator rounds up, and a loss is a number of its own.
CLOSE = dict(rel=0.01) if DEVICE == 'cuda' else dict(abs=64)


def numbers(count: int = 1, **options) -> torch.Tensor:
    return torch.zeros(count * NUMBERS, device=DEVICE, **options)


def test_what_is_freed_makes_room():
    def step():
        first = numbers()
        first.add_(1).view(2, -1).mul_(2)
        second = numbers(2)
        del first
        third = numbers(3)
        return second, third

    assert peak_bytes(step) == pytest.approx(5 * SIZE, **CLOSE)


def test_what_was_there_does_not_count():
    weight = numbers()
    assert peak_bytes(lambda: weight.mul_(2).view(2, -1).sub_(1)) == pytest.approx(0, abs=64)
    assert peak_bytes(lambda: weight + 1) == pytest.approx(SIZE, **CLOSE)


@pytest.mark.parametrize('layers', [1, 3, 6])
def test_a_step_forward_and_backward(layers):
    """Each exponential keeps its result; above them stands the gradient that goes back."""
    weight = numbers(requires_grad=True)

    def step():
        maps = weight
        for _ in range(layers):
            maps = maps.exp()
        total = maps.sum()
        del maps
        total.backward()

    assert peak_bytes(step) == pytest.approx((layers + 1) * SIZE, **CLOSE)


@pytest.mark.skipif(DEVICE == 'cuda', reason='CUDA counts itself')
def test_what_an_operator_takes_for_itself_counts():
    weight = numbers()
    # It sorts copies of values and positions, and returns the value in the middle alone.
    assert peak_bytes(weight.median) > SIZE


@pytest.mark.skipif(DEVICE == 'cuda', reason='CUDA counts itself')
def test_a_profiler_that_runs_is_left_alone():
    with torch.autograd.profiler.profile() as profiler:
        with pytest.raises(RuntimeError, match='while another profiler is running'):
            peak_bytes(lambda: numbers() + 1)
        numbers()
    assert 'aten::zeros' in {event.name for event in profiler.function_events}


def test_what_an_optimizer_keeps_counts_for_what_is_in_the_model():
    model = nn.ModuleDict(dict(member=nn.Linear(4, 4), method=nn.Linear(100, 100)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    wrapper = OptimWrapper(optimizer)
    assert state_bytes(wrapper, model) == 4 * (20 + 10100)
    del model['method']
    assert state_bytes(wrapper, model) == 4 * 20
