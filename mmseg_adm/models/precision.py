"""A network that computes in lower precision, whoever calls it and whatever around it trains."""

from __future__ import annotations

from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from .taps import find_classifier

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


def check_dtype(dtype: object) -> None:
    """Refuse what this machine does not compute in.

    Args:
        dtype: The name of a type, for a frozen member.

    Raises:
        ValueError: If it is none of these, or needs another device.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be one of {", ".join(map(repr, DTYPES))}, got {dtype!r}')
    if dtype == 'float16' and not torch.cuda.is_available():
        raise ValueError("dtype='float16' needs CUDA: on a CPU use dtype='bfloat16', or none")
    if dtype == 'bfloat16' and torch.cuda.is_available() and not torch.cuda.is_bf16_supported():
        raise ValueError("this GPU does not compute in bfloat16: use dtype='float16', or none")


def lower_precision(network: nn.Module, dtype: str) -> None:
    """Let a frozen network compute under autocast of its own, its weights kept in ``dtype``.

    What it computes is to the bit what autocast computes with its float32 weights, at half the
    memory and without casting them in each pass: kept in ``dtype`` are those of convolutions and
    linear layers, which autocast casts. Norms and what else it has stay in float32, and its logits
    are float32 before they are resized.

    Args:
        network: A segmentor in evaluation mode; is changed in place.
        dtype: A key of ``DTYPES``.
    """
    classifier = find_classifier(network)
    for module in network.modules():
        # Methods may run the classifier on other features, in float32.
        if isinstance(module, (_ConvNd, nn.Linear)) and module is not classifier:
            module.to(DTYPES[dtype])
    classifier.register_forward_hook(_in_float32)
    # Of the instance, since others call the network too; bound, so that a copy runs itself.
    network.forward = MethodType(partial(_forward, DTYPES[dtype]), network)


def _forward(dtype: torch.dtype, network: nn.Module, *args: Any, **kwargs: Any) -> Any:
    device = next(network.parameters()).device.type
    with torch.autocast(device, dtype):
        return type(network).forward(network, *args, **kwargs)


def _in_float32(module: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    return output.float()
