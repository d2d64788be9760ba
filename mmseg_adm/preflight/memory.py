"""How much memory a training step will take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from mmseg_adm.models import KnowledgeDistiller

from .report import Memory


def estimate_memory(
    model: KnowledgeDistiller,
    optim_wrapper: Any,
    activations: int,
    measured: tuple[int, int, int],
    wanted: tuple[int, int, int],
) -> Memory:
    """Weights, gradients, what the optimisers keep, and activations.

    Args:
        model: The distiller.
        optim_wrapper: Its optimisers.
        activations: Bytes that autograd saved for a batch.
        measured: Images, height and width of that batch.
        wanted: Of the batch that will train.
    """
    weights = [*model.parameters(), *model.buffers()]
    for member in model.frozen.values():
        weights += [*member.network.parameters(), *member.network.buffers()]
    factor = _pixels(wanted) / _pixels(measured)
    images, height, width = measured
    basis = f'what autograd saves for {images} images of {height}x{width}'
    if factor != 1:
        images, height, width = wanted
        basis += f', scaled by pixels to {images} of {height}x{width}'
    return Memory(
        weights=_bytes(weights),
        gradients=_bytes(each for each in model.parameters() if each.requires_grad),
        optimizer=optimizer_bytes(optim_wrapper),
        activations=round(activations * factor),
        basis=basis,
    )


def optimizer_bytes(optim_wrapper: Any) -> int:
    """What the optimisers keep after their first step, found with one small parameter a group."""
    grouped = isinstance(optim_wrapper, OptimWrapperDict)
    wrappers = list(optim_wrapper.values()) if grouped else [optim_wrapper]
    return sum(_optimizer_bytes(wrapper.optimizer) for wrapper in wrappers)


def _optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    probes = [torch.zeros(2, 3, requires_grad=True) for _ in optimizer.param_groups]
    groups = [
        {**group, 'params': [probe]}
        for group, probe in zip(optimizer.param_groups, probes, strict=True)
    ]
    trial = type(optimizer)(groups)  # type: ignore[call-arg]
    for probe in probes:
        probe.grad = torch.ones_like(probe)
    trial.step()
    total = 0
    for group, probe in zip(optimizer.param_groups, probes, strict=True):
        kept = [each for each in trial.state[probe].values() if isinstance(each, Tensor)]
        copies = sum(each.shape == probe.shape for each in kept)
        total += copies * _bytes(each for each in group['params'] if each.requires_grad)
    return total


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _pixels(batch: tuple[int, int, int]) -> int:
    images, height, width = batch
    return images * height * width
