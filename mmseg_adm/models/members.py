"""The networks that train together: built by mmseg, loaded strictly, frozen for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from mmseg_adm.checkpoint import (
    local_path,
    member_weights,
    read_checkpoint,
    safe_loading,
    sha256_of,
)
from mmseg_adm.config.members import MEMBER_OPTIONS
from mmseg_adm.mistakes import words_of

from .precision import check_dtype, lower_precision
from .taps import FeatureTap, find_classifier

# What mmseg raises where a network needs a package or an operator that is not there.
BUILD_ERRORS = (AssertionError, ImportError, KeyError, RuntimeError, TypeError, ValueError)


class FrozenMember:
    """A network that only teaches: in eval for good, without gradient, never saved.

    A plain object, so that the network stays outside the module tree: ``train()``,
    ``state_dict()``, ``init_weights()``, optimizers and distributed wrappers don't see it.

    Args:
        network: The segmentor, its weights loaded.
        checkpoint: Where they came from.
        dtype: In which it computes: see :func:`~.precision.lower_precision`.
    """

    def __init__(self, network: nn.Module, checkpoint: Path, dtype: str | None = None) -> None:
        self.network = network.eval().requires_grad_(False)
        self.checkpoint = checkpoint
        self.dtype = dtype
        if dtype is not None:
            lower_precision(self.network, dtype)
        self.sha256 = sha256_of(checkpoint)
        self.taps: dict[str, FeatureTap] = {}

    def __deepcopy__(self, memo: dict) -> FrozenMember:
        """Share the network with an averaged copy of the student: it never changes."""
        return self

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> None:
        """Run backbone and decode head, for the taps: no auxiliary head, no upsampling."""
        self.network(inputs, mode='tensor')


def build_member(name: str, config: dict) -> nn.Module | FrozenMember:
    """Build one member from a plain segmentor config and a few options of ours.

    Args:
        name: The member's name, for messages.
        config: A segmentor config; ``frozen`` (bool), ``checkpoint`` (path, address or
            model-zoo name), ``new_classifier`` (bool: the classifier starts untrained where
            the checkpoint has one for other classes) and ``dtype`` (in which a frozen member
            computes: ``'bfloat16'``, or, on a GPU, ``'float16'``) are ours, the rest is mmseg's.

    Raises:
        ValueError: If a frozen member has no checkpoint or may have a new classifier, one that
            trains has a ``dtype``, the device does not compute in it, the weights don't fit
            exactly, or the network is one that cannot be distilled.
        FileNotFoundError: If the checkpoint is not there.
    """
    config = ConfigDict(config)
    frozen, checkpoint, new_classifier, dtype = (
        config.pop(option, None) for option in MEMBER_OPTIONS
    )
    if frozen and not checkpoint:
        raise ValueError(
            f"member '{name}' is frozen and has no checkpoint: it would teach noise. Set "
            f'model.members.{name}.checkpoint to the weights of a trained network'
        )
    if frozen and new_classifier:
        raise ValueError(
            f"member '{name}' is frozen, and an untrained classifier would teach noise: remove "
            f'model.members.{name}.new_classifier'
        )
    if dtype is not None and not frozen:
        raise ValueError(
            f"member '{name}' trains, and only a frozen one computes in a dtype of its own: remove "
            f'model.members.{name}.dtype. Mixed precision of those that train is --amp'
        )
    try:
        if dtype is not None:
            check_dtype(dtype)
        network = MMSEG_MODELS.build(config)
        _check_network(network, frozen)
    except BUILD_ERRORS as error:
        raise ValueError(f"member '{name}': {words_of(error)}{_hint(config)}") from error
    if not checkpoint:
        return network

    path = _load(name, network, checkpoint, bool(frozen), bool(new_classifier))
    return FrozenMember(network, path, dtype) if frozen else network


def _load(name: str, network: Any, checkpoint: str, frozen: bool, new_classifier: bool) -> Path:
    """Load what the file holds for the member, and say where it lies."""
    try:
        path = local_path(checkpoint)
        content = read_checkpoint(path)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"member '{name}': {error}") from None
    source = f"the checkpoint of member '{name}', {path},"
    weights = member_weights(content, network, name, source, frozen, new_classifier)
    if weights.backbone_only and network.init_cfg:
        raise ValueError(
            f"{source} holds a backbone alone, and the segmentor's own init_cfg would overwrite "
            f'it: remove model.members.{name}.init_cfg'
        )
    if weights.new_classifier:
        with safe_loading():
            network.init_weights()
    # Compared already; what is missing now is missing on purpose.
    network.load_state_dict(weights.state_dict, strict=False)
    notes = f': {"; ".join(weights.notes)}' if weights.notes else ''
    print_log(f"Loaded member '{name}' from {path}{notes}", logger='current')
    # Runner.train() calls init_weights: what is loaded must not be initialized again.
    (network.backbone if weights.backbone_only else network).is_init = True
    return path


def _hint(config: ConfigDict) -> str:
    """Without their packages mask heads fail in ways that do not tell what they are."""
    head = config.get('decode_head') or {}
    name = (head[-1] if isinstance(head, (list, tuple)) else head).get('type')
    kind = MMSEG_MODELS.get(name) if isinstance(name, str) else name
    if kind is None or issubclass(kind, BaseDecodeHead):
        return ''
    return (
        f'. Nor could it be distilled: {kind.__name__} has no classifier that yields a map of '
        'classes. Choose another decode head'
    )


def _check_network(network: nn.Module, frozen: bool) -> None:
    classifier = find_classifier(network)
    if classifier.out_channels == 1:
        raise ValueError(
            'it predicts one channel: a sigmoid head has no class distribution to distil. Use '
            'out_channels=2'
        )
    for path, module in network.named_modules():
        if getattr(module, 'with_cp', False) and not frozen:
            raise ValueError(
                f'{path} has with_cp=True. Checkpointed blocks run twice, the first time without '
                'gradient, so that what is read from them would not train the network. Set '
                'with_cp=False'
            )
