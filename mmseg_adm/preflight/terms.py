"""Whom each loss updates: found by its gradient, not by what the method says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmseg_adm.models import KnowledgeDistiller

from .activations import SavedActivations
from .report import Report, Term

# As GradScaler starts: small gradients survive a backward pass in half precision.
SCALE = 2.0**16


class Step(NamedTuple):
    """One training step that was tried.

    Attributes:
        terms: Every loss.
        untouched: Trainable parameters that no loss reaches, by owner.
        activations: Bytes that the forward pass keeps for the backward pass.
    """

    terms: list[Term]
    untouched: dict[str, list[str]]
    activations: int


def try_step(model: KnowledgeDistiller, data: dict, optim_wrapper: Any) -> Step:
    """Losses of one batch and their gradients; nothing is updated.

    Every method runs at full strength, also one that starts later.

    Args:
        model: Not the one that will train: batch statistics move.
        data: Preprocessed; two images or more.
        optim_wrapper: Its autocast applies.
    """
    model.train()
    model.pauses_members = True
    for method in model.methods.values():
        method.strength = 1.0
    saved = SavedActivations(model)
    with optim_wrapper.optim_context(model), saved:
        losses = model(**data, mode='loss')
    owners = _parameters_by_owner(model)
    terms = []
    reached: set[str] = set()
    for key, value in losses.items():
        if 'loss' not in key:
            continue
        owner, name = key.split('.', 1)
        # As MMEngine's parse_losses sums them.
        parts = value if isinstance(value, (list, tuple)) else [value]
        total = torch.stack([part.mean() for part in parts]).sum()
        gradients = _gradients(total, owners)
        reached.update(f'{each}.{path}' for each, path, _ in gradients)
        moved = {each for each, _, moves in gradients if moves}
        touched = {each for each, _, _ in gradients}
        terms.append(
            Term(
                owner=owner,
                name=name,
                value=total.item(),
                updates=_in_order(moved, owners),
                silent=_in_order(touched - moved, owners),
            )
        )
    untouched = {
        owner: [path for path in parameters if f'{owner}.{path}' not in reached]
        for owner, parameters in owners.items()
    }
    return Step(terms, {owner: paths for owner, paths in untouched.items() if paths}, saved.bytes)


def _parameters_by_owner(model: KnowledgeDistiller) -> dict[str, dict[str, Tensor]]:
    modules: dict[str, nn.Module] = {**model.members, **model.methods}
    return {
        owner: {
            path: parameter
            for path, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        for owner, module in modules.items()
    }


def _gradients(
    loss: Tensor, owners: Mapping[str, Mapping[str, Tensor]]
) -> list[tuple[str, str, bool]]:
    """Owner and path of each parameter in the graph of ``loss``, and whether it moves."""
    if not loss.requires_grad:
        return []
    places = [(owner, path) for owner, own in owners.items() for path in own]
    parameters = [owners[owner][path] for owner, path in places]
    gradients = torch.autograd.grad(
        SCALE * loss.float(), parameters, retain_graph=True, allow_unused=True
    )
    return [
        (owner, path, bool(gradient.ne(0).any()))
        for (owner, path), gradient in zip(places, gradients, strict=True)
        if gradient is not None
    ]


def _in_order(names: set[str], owners: Mapping) -> tuple[str, ...]:
    return tuple(name for name in owners if name in names)


def check_terms(model: KnowledgeDistiller, step: Step, report: Report) -> None:
    """Compare what was found with what each method declares; one line each.

    Args:
        model: The one that :func:`try_step` ran.
        step: What it found.
        report: Takes the lines.
    """
    before = len(report.checks)
    for term in step.terms:
        if not math.isfinite(term.value):
            report.add('terms', 'failed', f'{_named(term)} is {term.value} on the first images')
    for name in model.members:
        _check_member(name, [term for term in step.terms if term.owner == name], report)
    for name, method in model.methods.items():
        own = [term for term in step.terms if term.owner == name]
        _check_method(name, method, own, report)
    if len(report.checks) == before:
        report.add('terms', 'ok', f'{len(step.terms)} losses update whom they should')
    for owner, paths in step.untouched.items():
        report.add(
            'gradients',
            'warning',
            f"{len(paths)} parameters of '{owner}' get no gradient from any loss "
            f'({_listed(paths)}): with several processes set find_unused_parameters=True in '
            'model_wrapper_cfg',
        )


def _check_member(name: str, terms: Sequence[Term], report: Report) -> None:
    if not any(name in (*term.updates, *term.silent) for term in terms):
        report.add('terms', 'failed', f"no loss of its own trains '{name}': look at loss_decode")
    for term in terms:
        if others := [each for each in term.updates if each != name]:
            report.add('terms', 'failed', f'{_named(term)} also trains {", ".join(others)}')


def _check_method(name: str, method: Any, terms: Sequence[Term], report: Report) -> None:
    declared = method.updates()
    reached: set[str] = set()
    for term in terms:
        reached.update(term.updates, term.silent)
        if undeclared := [each for each in term.updates if each not in (*declared, name)]:
            report.add(
                'terms',
                'failed',
                f'{_named(term)} trains {", ".join(undeclared)}, but {type(method).__name__}.'
                f'updates() names {", ".join(declared) or "nobody"}: detach the target',
            )
        elif not term.updates and not term.silent:
            report.add(
                'terms',
                'failed',
                f'{_named(term)} trains nobody: it has no gradient. Is everything detached?',
            )
        elif not term.updates and not set(term.silent) & method.paused:
            report.add(
                'terms',
                'warning',
                f'the gradient of {_named(term)} is zero on the images tried: is its weight zero?',
            )
    if missed := [each for each in declared if each not in reached]:
        report.add(
            'terms',
            'failed',
            f"no term of '{name}' reaches {', '.join(missed)}, which {type(method).__name__}."
            'updates() names',
        )


def _named(term: Term) -> str:
    return f'{term.owner}.{term.name}'


def _listed(paths: Sequence[str], shown: int = 3) -> str:
    more = f', and {len(paths) - shown} more' if len(paths) > shown else ''
    return ', '.join(paths[:shown]) + more
