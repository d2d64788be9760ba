"""What a step takes of a device's memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor, nn


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """The sum of their sizes."""
    return sum(tensor.nbytes for tensor in tensors)


def weight_bytes(model: Any) -> int:
    """Weights and buffers of a distiller, or of a plain segmentor; of frozen members too."""
    frozen = [member.network for member in getattr(model, 'frozen', {}).values()]
    networks = [model, *frozen]
    return bytes_of(tensor for network in networks
                    for tensor in (*network.parameters(), *network.buffers()))  # fmt: skip


def state_bytes(optim_wrapper: Any, model: nn.Module) -> int:
    """What its optimizers keep by now of what is in the model, such as momentum."""
    return bytes_of(
        value
        for optimizer in optimizers_in(optim_wrapper)
        for parameter in model.parameters()
        for value in optimizer.state.get(parameter, {}).values()
        if isinstance(value, Tensor)
    )


def optimizers_in(optim_wrapper: Any) -> list[torch.optim.Optimizer]:
    """Its optimizers, one or by group."""
    grouped = isinstance(optim_wrapper, OptimWrapperDict)
    return [each.optimizer for each in (optim_wrapper.values() if grouped else [optim_wrapper])]


class BusyProfiler(RuntimeError):
    """PyTorch has one profiler in a process, and a second one would end the first."""


def peak_bytes(step: Callable[[], Any]) -> int:
    """The most that one step has allocated at a time, beyond what was there before it.

    By what the allocator says, so that what an operator takes for itself counts too.

    Args:
        step: Runs it.

    Raises:
        BusyProfiler: On a CPU, if somebody else's profiler is running.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    if torch.autograd._profiler_enabled():
        raise BusyProfiler('memory cannot be measured while another profiler is running')
    # Its own steps, above its errors.
    os.environ.setdefault('KINETO_LOG_LEVEL', '9')
    # Not torch.profiler, which imports the compiler: ten seconds.
    with torch.autograd.profiler.profile(profile_memory=True) as profiler:
        step()
    # The public events leave out what is allocated inside an operator.
    allocations = [
        event for event in profiler.kineto_results.events() if event.name() == '[memory]'
    ]
    allocations.sort(key=lambda event: event.start_ns())
    return max(accumulate((event.nbytes() for event in allocations), initial=0))
