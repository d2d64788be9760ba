"""Whom each loss updates: found by its gradient, not by what the method says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmseg_adm.models import KnowledgeDistiller

from .report import Report, Term

# As GradScaler starts: small gradients survive a backward pass in half precision.
SCALE = 2.0**16
# Owner and path in it.
Place = tuple[str, str]


class Losses(NamedTuple):
    """Of one training step that was tried.

    Attributes:
        values: As the model returns them, in their graph.
        activations: Bytes that the forward pass keeps for the backward pass.
    """

    values: Mapping[str, Any]
    activations: int


class Step(NamedTuple):
    """Whom the losses of a training step update.

    Attributes:
        terms: Every loss.
        untouched: Trainable parameters that no loss reaches, by owner.
    """

    terms: list[Term]
    untouched: dict[str, list[str]]


class SavedActivations(torch.autograd.graph.saved_tensors_hooks):
    """Counts, inside a ``with`` block, the bytes that autograd saves, each storage once.

    Weights and buffers, which are there anyway, don't count.

    Args:
        model: Whose weights these are.
    """

    def __init__(self, model: nn.Module) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._resident = {tensor.untyped_storage().data_ptr() for tensor in own}
        self._sizes: dict[int, int] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    @property
    def bytes(self) -> int:
        """The sum."""
        return sum(self._sizes.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if (address := storage.data_ptr()) not in self._resident:
            self._sizes[address] = max(storage.nbytes(), self._sizes.get(address, 0))
        return tensor


def try_step(model: KnowledgeDistiller, data: dict, optim_wrapper: Any) -> Losses:
    """Losses of one batch.

    Every method runs at full strength, also one that starts later.

    Args:
        model: Not the one that will train: batch statistics move.
        data: Preprocessed, of as many images as the smallest batch of the training.
        optim_wrapper: Its autocast applies.
    """
    model.train()
    model.pauses_members = True
    for method in model.methods.values():
        method.strength = 1.0
    saved = SavedActivations(model)
    with optim_wrapper.optim_context(model), saved:
        return Losses(model(**data, mode='loss'), saved.bytes)


def try_backward(losses: Losses) -> None:
    """The backward pass of a training, which sums all losses."""
    torch.stack([total.float() for total in _totals(losses).values()]).sum().backward()


def find_terms(model: KnowledgeDistiller, losses: Losses) -> Step:
    """Whom each loss has a gradient for; nothing is updated.

    Args:
        model: The one that :func:`try_step` ran.
        losses: What it found.
    """
    owners: dict[str, nn.Module] = {**model.members, **model.methods}
    parameters = {
        (owner, path): parameter
        for owner, module in owners.items()
        for path, parameter in module.named_parameters()
        if parameter.requires_grad
    }
    terms = []
    reached: set[Place] = set()
    for key, total in _totals(losses).items():
        owner, name = key.split('.', 1)
        moves = _moves(total, parameters)
        reached |= moves.keys()
        touched = {place[0] for place in moves}
        moved = {place[0] for place, moving in moves.items() if moving}
        updates = tuple(each for each in owners if each in moved)
        silent = tuple(each for each in owners if each in touched - moved)
        terms.append(Term(owner, name, total.item(), updates, silent))
    untouched: dict[str, list[str]] = {}
    for owner, path in parameters:
        if (owner, path) not in reached:
            untouched.setdefault(owner, []).append(path)
    return Step(terms, untouched)


def _totals(losses: Losses) -> dict[str, Tensor]:
    """Every loss as one number, as MMEngine's parse_losses sums them."""
    totals = {}
    for key, value in losses.values.items():
        if 'loss' in key:
            parts = value if isinstance(value, (list, tuple)) else [value]
            totals[key] = torch.stack([part.mean() for part in parts]).sum()
    return totals


def _moves(loss: Tensor, parameters: Mapping[Place, Tensor]) -> dict[Place, bool]:
    """Each parameter in the graph of ``loss``, and whether its gradient is not zero."""
    if not loss.requires_grad:
        return {}
    gradients = torch.autograd.grad(
        SCALE * loss.float(), list(parameters.values()), retain_graph=True, allow_unused=True
    )
    return {
        place: bool(gradient.any())
        for place, gradient in zip(parameters, gradients, strict=True)
        if gradient is not None
    }


def check_terms(model: KnowledgeDistiller, step: Step, report: Report) -> None:
    """Compare what was found with what each method declares; one line each.

    Args:
        model: The one that :func:`try_step` ran.
        step: What :func:`find_terms` found.
        report: Takes the lines.
    """
    before = len(report.checks)
    for term in step.terms:
        if not math.isfinite(term.value):
            report.add('terms', 'failed', f'{term.path} is {term.value} on the first images')
    for name in model.members:
        _check_member(name, [term for term in step.terms if term.owner == name], report)
    for name, method in model.methods.items():
        own = [term for term in step.terms if term.owner == name]
        _check_method(name, method, own, report)
    if len(report.checks) == before:
        report.add('terms', 'ok', f'{len(step.terms)} losses update whom they should')
    for owner, paths in step.untouched.items():
        more = f', and {len(paths) - 3} more' if len(paths) > 3 else ''
        report.add(
            'gradients',
            'warning',
            f"{len(paths)} parameters of '{owner}' get no gradient from any loss "
            f'({", ".join(paths[:3])}{more}): with several processes set '
            'find_unused_parameters=True in model_wrapper_cfg',
        )


def _check_member(name: str, terms: Sequence[Term], report: Report) -> None:
    if not any(name in (*term.updates, *term.silent) for term in terms):
        report.add('terms', 'failed', f"no loss of its own trains '{name}': look at loss_decode")
    for term in terms:
        if others := [each for each in term.updates if each != name]:
            report.add('terms', 'failed', f'{term.path} also trains {", ".join(others)}')


def _check_method(name: str, method: Any, terms: Sequence[Term], report: Report) -> None:
    declared, kind = method.updates(), type(method).__name__
    for term in terms:
        if undeclared := [each for each in term.updates if each not in (*declared, name)]:
            named = ', '.join(declared) or 'nobody'
            text = f'trains {", ".join(undeclared)}, but {kind}.updates() names {named}'
            report.add('terms', 'failed', f'{term.path} {text}: detach the target')
        elif not term.updates and not term.silent:
            text = 'trains nobody: it has no gradient. Is everything detached?'
            report.add('terms', 'failed', f'{term.path} {text}')
        elif not term.updates and not any(method.paused.get(each) for each in term.silent):
            text = 'is zero on the images tried: is its weight zero?'
            report.add('terms', 'warning', f'the gradient of {term.path} {text}')
    reached = {each for term in terms for each in (*term.updates, *term.silent)}
    if missed := [each for each in declared if each not in reached]:
        text = f"no term of '{name}' reaches {', '.join(missed)}, which {kind}.updates() names"
        report.add('terms', 'failed', text)
