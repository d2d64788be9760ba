"""Reading feature maps and logits out of a network without changing it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

NAMED_POINTS = ('features', 'logits')


class FeatureTap:
    """What one point of one network produced last.

    Args:
        network: A segmentor.
        point: ``'logits'``, the output of the decode head's classifier; ``'features'``, what
            the classifier reads, before its dropout; or the path of any module, as in
            ``network.named_modules()``, whose output is taken.

    Raises:
        ValueError: If the network has no such point; the message lists the nearest names.
    """

    def __init__(self, network: nn.Module, point: str) -> None:
        self.point = point
        self.recording = False
        self._value: Tensor | None = None
        self._dropped: list[tuple[Tensor, Tensor]] = []
        # Bound methods: a deep copy of the network then carries hooks of its own.
        if point in NAMED_POINTS:
            self.classifier = find_classifier(network)
            self._handles = [self.classifier.register_forward_hook(self._see_classifier)]
            dropout = getattr(decode_head_of(network), 'dropout', None)
            if point == 'features' and isinstance(dropout, nn.Module):
                self._handles.append(dropout.register_forward_hook(self._see_dropout))
        else:
            module = find_module(network, point)
            self._handles = [module.register_forward_hook(self._see_output)]

    @property
    def value(self) -> Tensor:
        """The captured tensor.

        Raises:
            RuntimeError: If nothing was captured since the last :meth:`clear`.
        """
        if self._value is None:
            raise RuntimeError(
                f"the tap '{self.point}' captured nothing: its module did not run in this "
                'forward pass, or was replaced or compiled after the tap was set'
            )
        return self._value

    def clear(self) -> None:
        """Release the captured tensor, and with it the graph behind it."""
        self._value = None
        self._dropped.clear()

    def remove(self) -> None:
        """Take the hooks out of the network."""
        self.clear()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _see_output(self, module: nn.Module, inputs: tuple, output: object) -> None:
        if not self.recording:
            return
        if not isinstance(output, Tensor) or output.dim() != 4:
            found = (
                f'{tuple(output.shape)}' if isinstance(output, Tensor) else type(output).__name__
            )
            raise TypeError(
                f"the tap '{self.point}' reads a {type(module).__name__} that returns {found}, "
                'not a map (B, C, h, w): name another module, such as one inside it'
            )
        self._value = output

    def _see_dropout(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if self.recording:
            self._dropped.append((inputs[0], output))

    def _see_classifier(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if not self.recording:
            return
        if self.point == 'logits':
            self._value = output
            return
        # Some heads drop out elsewhere too: only the dropout that feeds the classifier counts.
        fed = [before for before, after in self._dropped if after is inputs[0]]
        self._value = fed[-1] if fed else inputs[0]


class Recorder(Protocol):
    """What captures while it records, and can let go."""

    recording: bool

    def clear(self) -> None:
        """Release what is held."""


@contextmanager
def recording(taps: Sequence[Recorder]):
    """Let ``taps`` capture inside the block, and release what they hold when it ends."""
    for tap in taps:
        tap.recording = True
    try:
        yield
    finally:
        for tap in taps:
            tap.recording = False
            tap.clear()


def decode_head_of(network: nn.Module) -> nn.Module:
    """The decode head; of a cascade the last one.

    Raises:
        ValueError: If the network has none.
    """
    head = getattr(network, 'decode_head', None)
    if head is None:
        raise ValueError(f'{type(network).__name__} has no decode_head')
    return head[-1] if isinstance(head, nn.ModuleList) else head


def find_classifier(network: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution of the decode head that yields the logits.

    Raises:
        ValueError: If the head has no classifier of its own (query-based heads).
    """
    head = decode_head_of(network)
    classifier = getattr(head, 'conv_seg', None)
    if not isinstance(classifier, nn.Conv2d):
        raise ValueError(
            f"{type(head).__name__} has no classifier 'conv_seg' of its own, so it has neither "
            "'features' nor 'logits' to tap: choose another decode head"
        )
    return classifier


class CrossEntropySettings(NamedTuple):
    """How a decode head's own cross entropy averages.

    Attributes:
        class_weight: (K,), or ``None`` where all classes count alike.
        over_all_pixels: Whether it divides by all pixels, unlabelled ones included, as mmseg
            does by default; else by the weights of the labelled ones.
    """

    class_weight: Tensor | None
    over_all_pixels: bool


def cross_entropy_of(network: nn.Module) -> CrossEntropySettings:
    """Read from the first loss of the decode head that weighs classes, else from its first."""
    losses = getattr(decode_head_of(network), 'loss_decode', None)
    each = list(losses) if isinstance(losses, nn.ModuleList) else [losses]
    weighing = (loss for loss in each if getattr(loss, 'class_weight', None) is not None)
    loss: Any = next(weighing, each[0])
    weight = getattr(loss, 'class_weight', None)
    # mmseg with reduction='none' leaves the mean, over all pixels, to MMEngine.
    unreduced = getattr(loss, 'reduction', 'mean') == 'none'
    return CrossEntropySettings(
        class_weight=None if weight is None else torch.as_tensor(weight, dtype=torch.float32),
        over_all_pixels=unreduced or (weight is None and not getattr(loss, 'avg_non_ignore', True)),
    )


def find_module(network: nn.Module, path: str) -> nn.Module:
    """The module at ``path``.

    Raises:
        ValueError: If there is none; the message lists the nearest names.
    """
    modules = dict(network.named_modules())
    if not path or path not in modules:
        names = [*NAMED_POINTS, *filter(None, modules)]
        near = difflib.get_close_matches(path, names, n=5, cutoff=0.3)
        raise ValueError(
            f"{type(network).__name__} has no point '{path}' to tap. "
            f'Nearest: {", ".join(near) or "none"}. Always there: {", ".join(NAMED_POINTS)}'
        )
    return modules[path]


def channels_at(network: nn.Module, point: str) -> int:
    """How many channels a point has."""
    if point == 'features':
        return find_classifier(network).in_channels
    if point == 'logits':
        return find_classifier(network).out_channels
    return map_shapes(network, [point])[point][0]


def map_shapes(network: nn.Module, points: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """(C, h, w) at several points, found by one forward pass on :func:`probe_images`.

    Raises:
        ValueError: If the network has no such point.
        TypeError: If a point yields no map.
    """
    was_training = network.training
    taps: list[FeatureTap] = []
    try:
        taps.extend(FeatureTap(network, point) for point in points)
        network.eval()
        with torch.no_grad(), recording(taps):
            network(probe_images(network))
            shapes = [tap.value.shape for tap in taps]
    finally:
        network.train(was_training)
        for tap in taps:
            tap.remove()
    return {point: (c, h, w) for point, (_, c, h, w) in zip(points, shapes, strict=True)}


def probe_images(network: nn.Module) -> Tensor:
    """One image of 128x128 that the network can read, always the same."""
    channels = next(m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    images = torch.randn(1, channels, 128, 128, generator=torch.Generator().manual_seed(0))
    return images.to(next(network.parameters()))
