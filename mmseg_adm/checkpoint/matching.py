"""Recognizing what a file holds, and what of it a member uses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from .difference import Difference, difference, indented, refuse
from .finite import check_finite
from .reading import weights_of

Weights = Mapping[str, Tensor]
# The wrapper of DistributedDataParallel and of averaged models, and what the latter count.
WRAPPER = 'module.'
COUNTERS = ('steps', 'n_averaged')
BACKBONE = 'backbone'
DECODE_HEAD = 'decode_head'
AUXILIARY_HEAD = 'auxiliary_head'


@dataclass(frozen=True)
class MemberWeights:
    """What of a file a member uses.

    Args:
        state_dict: By the names of the member's network.
        notes: What was recognized and what is left out, for the log.
        backbone_only: Whether all but the backbone starts untrained.
        new_classifier: Whether the classifiers start untrained, and nothing else.
    """

    state_dict: Weights
    notes: tuple[str, ...] = ()
    backbone_only: bool = False
    new_classifier: bool = False


@dataclass(frozen=True)
class _Fit:
    weights: MemberWeights
    difference: Difference
    module: nn.Module


def member_weights(
    checkpoint: Mapping,
    network: nn.Module,
    member: str,
    source: str,
    frozen: bool = False,
    new_classifier: bool = False,
) -> MemberWeights:
    """The weights in a file as a member uses them.

    Recognized are segmentors, also wrapped, averaged or among the members of a distillation,
    and backbones. Nothing else may differ from the network than what the notes tell.

    Args:
        checkpoint: As :func:`read_checkpoint` gives it.
        network: The plain segmentor that the member is.
        member: Its name; prefers the one of that name where several of a distillation fit.
        source: What messages call the file.
        frozen: Whether the member only teaches: it never runs its auxiliary head, and must have
            a trained decode head.
        new_classifier: Whether classifiers may be left out that are for other classes.

    Raises:
        ValueError: If the file holds no weights that fit, with a short difference, or weights
            that are not finite.
    """
    weights = weights_of(checkpoint, source)
    plain = _unwrapped(weights)
    wrapped = plain is not weights
    notes = []
    if 'ema_state_dict' in checkpoint or (wrapped and _split(weights, COUNTERS)[0]):
        notes.append('averaged weights')
    if wrapped:
        notes.append(f"without the prefix '{WRAPPER}'")
    if held := _held_members(plain):
        name, others = _chosen(held, network, member, source, frozen)
        also = f' ({", ".join(others)} would fit too)' if others else ''
        notes.append(f"member '{name}' of a distillation{also}")
        plain = held[name]
    fit = _fit(plain, network, frozen)
    if fit.weights.backbone_only and frozen:
        raise ValueError(
            f'{source} holds a backbone without a decode head: a frozen member with an untrained '
            'head would teach noise. Give the checkpoint of a trained segmentor, or train the '
            f'member: model.members.{member}.frozen=False'
        )
    if new_classifier:
        fit = _without_classifiers(fit, network)
    refuse(fit.difference, fit.module, source, _advice(fit, member))
    check_finite(fit.weights.state_dict, source)
    return replace(fit.weights, notes=(*notes, *fit.weights.notes))


def check_plain_weights(checkpoint: Mapping, network: nn.Module, source: str) -> None:
    """Refuse a file that does not hold the weights with which a plain segmentor predicts.

    Args:
        checkpoint: As :func:`read_checkpoint` gives it.
        network: The segmentor.
        source: What messages call the file.

    Raises:
        ValueError: With a short difference. Auxiliary heads don't count: they do not predict.
    """
    _, weights = _split(_unwrapped(weights_of(checkpoint, source)), (AUXILIARY_HEAD,))
    _, expected = _split(network.state_dict(), (AUXILIARY_HEAD,))
    advice = ''
    if _held_members(weights):
        advice = 'It comes from a distillation: test it with the config in its work dir'
    refuse(difference(expected, weights), network, source, advice)


def _unwrapped(weights: Weights) -> Weights:
    """Without the prefix that wrappers put before every name."""
    inner = _split(weights, COUNTERS)[1]
    if not inner or not all(key.startswith(WRAPPER) for key in inner):
        return weights
    return _unwrapped(_below(WRAPPER, inner))


def _below(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def _split(weights: Weights, modules: Collection[str]) -> tuple[Weights, Weights]:
    """What lies in the outermost modules of these names, and the rest."""
    chosen = {key: value for key, value in weights.items() if key.split('.')[0] in modules}
    return chosen, {key: value for key, value in weights.items() if key not in chosen}


def _held_members(weights: Weights) -> dict[str, Weights]:
    """The members of a distillation's checkpoint by name; none in any other."""
    prefixes = {}
    for key in weights:
        kind, _, rest = key.partition('.')
        name = rest.partition('.')[0]
        if kind == 'members':
            prefixes[name] = f'members.{name}.'
        elif kind == 'averages':
            prefixes[name] = f'averages.{name}.module.'
    return {name: _below(prefix, weights) for name, prefix in prefixes.items()}


def _chosen(
    held: Mapping[str, Weights], network: nn.Module, member: str, source: str, frozen: bool
) -> tuple[str, list[str]]:
    """The held member that is meant, and the others that fit as well.

    Raises:
        ValueError: If none fits, or several do and none has the name.
    """
    fits = {name: _fit(weights, network, frozen) for name, weights in held.items()}
    fitting = [name for name, fit in fits.items() if not fit.difference]
    if not fitting:
        lines = [f'{name}: {"; ".join(fit.difference.problems(1))}' for name, fit in fits.items()]
        raise ValueError('\n'.join([
            f'{source} comes from a distillation, and no member in it fits this '
            f'{type(network).__name__}:', *indented(lines),
            'Frozen members are never saved: give the file that theirs was loaded from',
        ]))  # fmt: skip
    if member not in fitting and len(fitting) > 1:
        raise ValueError(
            f'{source} comes from a distillation, and several members in it fit: '
            f'{", ".join(fitting)}. Export the one that you mean (mmseg-adm export CONFIG '
            f'CHECKPOINT --member {fitting[0]}) and give the exported .pth'
        )
    name = member if member in fitting else fitting[0]
    return name, [other for other in fitting if other != name]


def _fit(weights: Weights, network: Any, frozen: bool) -> _Fit:
    if not _split(weights, (DECODE_HEAD,))[0]:
        own = {name.split('.')[0] for name in network.backbone.state_dict()}
        for names, prefix in (((BACKBONE,), f'{BACKBONE}.'), (own, '')):
            inside, outside = _split(weights, names)
            if inside:
                return _fit_backbone(_below(prefix, inside), outside, network)
    return _fit_segmentor(weights, network, frozen)


def _fit_backbone(inside: Weights, outside: Weights, network: Any) -> _Fit:
    """A backbone under its own names, and what stood beside it: a classifier as a rule."""
    notes = ['its backbone alone, all else starts untrained']
    if outside:
        modules = dict.fromkeys(key.split('.')[0] for key in outside)
        notes.append(f'left out: {", ".join(modules)}')
    weights = {f'{BACKBONE}.{key}': value for key, value in inside.items()}
    found = difference(network.backbone.state_dict(), inside)
    return _Fit(MemberWeights(weights, tuple(notes), True), found, network.backbone)


def _fit_segmentor(weights: Weights, network: nn.Module, frozen: bool) -> _Fit:
    expected: Weights = network.state_dict()
    auxiliary, rest = _split(weights, (AUXILIARY_HEAD,))
    expected_auxiliary, expected_rest = _split(expected, (AUXILIARY_HEAD,))
    notes: tuple[str, ...] = ()
    if frozen and difference(expected_auxiliary, auxiliary):
        # A frozen member never runs it.
        weights, expected, notes = rest, expected_rest, ('without its auxiliary head',)
    elif auxiliary and not expected_auxiliary:
        weights, notes = rest, ('left out: auxiliary_head, which the config lacks',)
    return _Fit(MemberWeights(weights, notes), difference(expected, weights), network)


def _without_classifiers(fit: _Fit, network: Any) -> _Fit:
    """Without what has one row a class, where the file has other classes and else the same."""
    shapes = fit.difference.shapes
    other = [
        name
        for name, (expected, found) in shapes.items()
        if name.split('.')[0] in (DECODE_HEAD, AUXILIARY_HEAD)
        and (expected[0], expected[1:]) == (network.out_channels, found[1:])
    ]
    if not other or len(other) < len(shapes) or fit.difference.missing or fit.difference.unexpected:
        return fit
    counts = f'{shapes[other[0]][1][0]} classes in the file, {network.out_channels} in the config'
    weights = {name: value for name, value in fit.weights.state_dict.items() if name not in other}
    notes = (*fit.weights.notes, f'{counts}: the classifier starts untrained')
    return _Fit(
        MemberWeights(weights, notes, new_classifier=True), Difference((), (), {}), fit.module
    )


def _advice(fit: _Fit, member: str) -> str:
    """What to do about the commonest differences."""
    found = fit.difference
    if fit.weights.backbone_only:
        return (
            'It holds a backbone alone. model.members.'
            f"{member}.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) loads what fits"
        )
    names = (*found.missing, *found.unexpected, *found.shapes)
    if found.missing and all(name.startswith(f'{AUXILIARY_HEAD}.') for name in names):
        return (
            'Only the auxiliary head differs: model.members.'
            f'{member}.auxiliary_head=None trains without one'
        )
    return ''
