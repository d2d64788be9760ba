"""The networks that train together: built by mmseg, loaded strictly, frozen for good."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import ConfigDict
from mmengine.logging import print_log
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import Tensor, nn

from mmseg_adm.checkpoint import (
    check_state_dict,
    local_path,
    read_checkpoint,
    sha256_of,
    weights_of,
)

from .taps import FeatureTap, find_classifier

MEMBER_OPTIONS = ('frozen', 'checkpoint')


class FrozenMember:
    """A network that only teaches: in eval for good, without gradient, never saved.

    A plain object, so that the network stays outside the module tree: ``train()``,
    ``state_dict()``, ``init_weights()``, optimisers and distributed wrappers don't see it.

    Args:
        network: The segmentor, its weights loaded.
        checkpoint: Where they came from.
    """

    def __init__(self, network: nn.Module, checkpoint: Path) -> None:
        self.network = network.eval().requires_grad_(False)
        self.checkpoint = checkpoint
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
    """Build one member from a plain segmentor config with ``frozen`` and ``checkpoint``.

    Args:
        name: The member's name, for messages.
        config: A segmentor config; ``frozen`` (bool) and ``checkpoint`` (path, address or
            model-zoo name) are ours, the rest is mmseg's.

    Raises:
        ValueError: If a frozen member has no checkpoint, the weights don't fit exactly, or
            the network is one that cannot be distilled.
        FileNotFoundError: If the checkpoint is not there.
    """
    config = ConfigDict(config)
    frozen, checkpoint = (config.pop(option, None) for option in MEMBER_OPTIONS)
    if frozen and not checkpoint:
        raise ValueError(
            f"member '{name}' is frozen and has no checkpoint: it would teach noise. Set "
            f'model.members.{name}.checkpoint to the weights of a trained network'
        )
    try:
        network = MMSEG_MODELS.build(config)
        _check_network(network, frozen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"member '{name}': {error}") from error
    if not checkpoint:
        return network

    try:
        path = local_path(checkpoint)
        weights = weights_of(read_checkpoint(path))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"member '{name}': {error}") from None
    check_state_dict(network, weights, f"the checkpoint of member '{name}', {path},")
    network.load_state_dict(weights)
    print_log(f"Loaded member '{name}' from {path}", logger='current')
    # Runner.train() calls init_weights: what is loaded must not be initialised again.
    network.is_init = True
    return FrozenMember(network, path) if frozen else network


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
