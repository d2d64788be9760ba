"""Reading feature maps and logits out of a network without changing it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from .shared import input_channels

NAMED_POINTS = ('features', 'logits')
LOWER = (torch.bfloat16, torch.float16)


class _Sight:
    """A tensor as it was when it was seen, whatever is written into it afterwards.

    Args:
        tensor: What a module returned.
        keep_copy: Whether it may be written into: then a copy is kept beside it.
    """

    def __init__(self, tensor: Tensor, keep_copy: bool) -> None:
        self._tensor = tensor
        # Without a version counter nobody could tell whether it was written into.
        self._countless = tensor.is_inference()
        self._version = 0 if self._countless else tensor._version
        self._copy = tensor.clone() if keep_copy or self._countless else None

    @property
    def overwritten(self) -> bool:
        """Whether another operation has written into the tensor since, or may have."""
        return self._countless or self._tensor._version != self._version

    @property
    def value(self) -> Tensor | None:
        """The values that were seen; ``None`` where they are lost."""
        return self._copy if self.overwritten else self._tensor


class FeatureTap:
    """What one point of one network produced last.

    What is read is what the module returned, also where the next one writes into it (a ReLU in
    place, a ``+=``). The first pass copies, and finds out whether there is need to: later ones
    copy only where something does write. In training and in evaluation that may differ.

    Args:
        network: A segmentor.
        point: ``'logits'``, the output of the decode head's classifier; ``'features'``, what
            the classifier reads, before its dropout; or the path of any module, as in
            ``network.named_modules()``, whose output is taken.

    Raises:
        ValueError: If the network has no such point; the message lists the nearest names. Or
            if the dropout before its classifier works in place.
    """

    def __init__(self, network: nn.Module, point: str) -> None:
        self.point = point
        self.recording = False
        self._sight: _Sight | None = None
        self._float32: Tensor | None = None
        self._dropped: list[tuple[_Sight, Tensor]] = []
        # By mode: whether something writes into what was seen in it.
        self._writes: dict[tuple[bool, bool], bool] = {}
        self._mode = (False, False)
        # Bound methods: a deep copy of the network then carries hooks of its own.
        if point in NAMED_POINTS:
            self.head, self.classifier = decode_head_of(network), find_classifier(network)
            dropout = find_dropout(network) if point == 'features' else None
            self._handles = [self.classifier.register_forward_hook(self._see_classifier)]
            if dropout is not None:
                self._handles.append(dropout.register_forward_hook(self._see_dropout))
        else:
            module = find_module(network, point)
            self._handles = [module.register_forward_hook(self._see_output)]

    @property
    def value(self) -> Tensor:
        """The captured tensor; in float32, unless autocast is on.

        Raises:
            RuntimeError: If nothing was captured since the last :meth:`clear`, or something
                wrote into the tensor that never did before.
        """
        if self._sight is None:
            raise RuntimeError(
                f"the tap '{self.point}' captured nothing: its module did not run in this "
                'forward pass, or was replaced or compiled after the tap was set'
            )
        value = self._sight.value
        if value is None:
            raise RuntimeError(
                f"the tap '{self.point}' has lost what its module returned: an operation wrote "
                'into it, which none did in the passes before. Let it work on a copy'
            )
        if value.dtype not in LOWER or torch.is_autocast_enabled(value.device.type):
            return value
        # That of a frozen member: the others compute in float32. Read often, cast once.
        if self._float32 is None:
            self._float32 = value.float()
        return self._float32

    def clear(self) -> None:
        """Release the captured tensor, and with it the graph behind it."""
        if self._sight is not None:
            self._writes[self._mode] = self._sight.overwritten
        self._sight = None
        self._float32 = None
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
        self._sight = self._see(module, output)

    def _see(self, module: nn.Module, tensor: Tensor) -> _Sight:
        self._mode = (module.training, torch.is_grad_enabled())
        self._float32 = None
        return _Sight(tensor, keep_copy=self._writes.get(self._mode, True))

    def _see_dropout(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if self.recording:
            self._dropped.append((self._see(module, inputs[0]), output))

    def _see_classifier(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if not self.recording:
            return
        if self.point == 'logits':
            self._sight = self._see(module, output)
            return
        # Some heads drop out elsewhere too: only the dropout that feeds the classifier counts.
        fed = [before for before, after in self._dropped if after is inputs[0]]
        self._sight = fed[-1] if fed else self._see(module, inputs[0])


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


def find_dropout(network: nn.Module) -> nn.Module | None:
    """The dropout of the decode head before its classifier, if it has one.

    Raises:
        ValueError: If it works in place: what it reads would be gone before it can be kept.
    """
    head = decode_head_of(network)
    dropout = getattr(head, 'dropout', None)
    if getattr(dropout, 'inplace', False):
        raise ValueError(
            f"the dropout of {type(head).__name__} works in place, so that its 'features' are gone "
            'before they can be read: set inplace=False'
        )
    return dropout if isinstance(dropout, nn.Module) else None


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
    channels = input_channels(network)
    images = torch.randn(1, channels, 128, 128, generator=torch.Generator().manual_seed(0))
    return images.to(next(network.parameters()))
