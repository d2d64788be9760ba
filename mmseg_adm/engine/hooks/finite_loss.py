"""No step is taken on a loss that is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor
from torch.optim import Optimizer

from mmseg_adm.checkpoint import first_of, not_finite
from mmseg_adm.engine.step_losses import TOTAL, StepLosses
from mmseg_adm.engine.unwrap import optimizers_of, unwrapped
from mmseg_adm.engine.way_back import way_back
from mmseg_adm.models.methods.base import one_of, whole
from mmseg_adm.registry import HOOKS

SKIPPED = 'train/skipped_steps'


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Looks at every loss of every step before the optimizer steps.

    It stops the training where one is NaN or infinite, and says which, of whom, in which iteration
    and on which images. With ``action='skip'`` it leaves out the step instead: weights, optimizer
    state, buffers and EMA teachers stay as they were, schedules go on, and the log counts
    ``skipped_steps``. Of accumulated batches one such loss skips the step of all. Gradients that
    overflow in float16 are the loss scaler's to skip, and nothing of this hook's.

    A step waits for the device no more often than without: what was read is what MMEngine logs. In
    several processes ``'skip'`` takes an all-reduce of one number, on the device, so that all of
    them skip; with ``'stop'`` the process that raises ends the others through its launcher.

    Args:
        action: ``'stop'`` or ``'skip'``. To skip costs a copy of buffers and EMA teachers a step.
        patience: How many steps in a row may be skipped; the next one stops the training.

    Raises:
        ValueError: If an option is something else.
    """

    # Before MMEngine logs the losses, which waits for each that is on the device.
    priority = 'HIGHEST'

    def __init__(self, action: str = 'stop', patience: int = 10) -> None:
        self.action = one_of('action', action, ('stop', 'skip'))
        self.patience = whole('patience', patience, at_least=1)

    def before_train(self, runner: Runner) -> None:
        """Watch the model's losses and the optimizers' steps."""
        skips = self.action == 'skip'
        model = unwrapped(runner)
        self.losses = StepLosses(shared=skips and get_world_size() > 1)
        self.batch: Mapping = {}
        # Whether a batch since the last step had a loss that is not finite.
        self.spoiled = False
        self.in_a_row = 0
        self.changing: list[Tensor] = []
        self.kept: list[Tensor] = []
        model.register_forward_hook(self.losses.take)
        for optimizer in optimizers_of(runner):
            optimizer.register_step_pre_hook(partial(self._before_step, runner))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Keep what the pass changes: what its losses are shows after it."""
        self.batch = data_batch or {}
        if self.action == 'skip' and not self.kept:
            # Not before: other hooks may lay tensors out anew before the training begins.
            self.changing = list(_changed_by_a_pass(unwrapped(runner)))
            self.kept = [tensor.clone() for tensor in self.changing]
        for kept, tensor in zip(self.kept, self.changing, strict=True):
            kept.copy_(tensor)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Hand the losses to MMEngine on the host; undo what a skipped pass has changed.

        Raises:
            ValueError: If a loss is not finite, amid an accumulation or unseen by the optimizers.
        """
        if outputs is not None:
            outputs.update(self.losses.on_host())
        if not self.losses.finite():
            self._stop_or_spoil(runner)
            self._undo(runner, outputs or {})
        if self.action == 'skip' and runner.optim_wrapper.should_update():
            self._count(runner)
        self.losses.clear()

    def _before_step(self, runner: Runner, optimizer: Optimizer, *_: object) -> None:
        if not self.losses.finite():
            self._stop_or_spoil(runner)
        if self.spoiled:
            # Without gradients every optimizer leaves weights and state alone.
            for group in optimizer.param_groups:
                for parameter in group['params']:
                    parameter.grad = None

    def _stop_or_spoil(self, runner: Runner) -> None:
        self.spoiled = True
        if self.action == 'stop':
            raise ValueError(f'{self._described(runner)}. {way_back(runner)}')

    def _undo(self, runner: Runner, outputs: dict) -> None:
        """Put back what the pass has changed, and leave its losses out of the log's means."""
        runner.logger.warning(f'{self._described(runner)}: this step is skipped')
        for tensor, kept in zip(self.changing, self.kept, strict=True):
            tensor.copy_(kept)
        for name in [name for name, value in outputs.items() if not math.isfinite(value)]:
            del outputs[name]

    def _count(self, runner: Runner) -> None:
        """Count a step that was skipped.

        Raises:
            ValueError: If the next one could be no better.
        """
        history = runner.message_hub.log_scalars.get(SKIPPED)
        skipped = int(history.current()) if history else 0
        runner.message_hub.update_scalar(SKIPPED, skipped + self.spoiled)
        self.in_a_row = self.in_a_row + 1 if self.spoiled else 0
        self.spoiled = False
        if not self.in_a_row:
            return
        if wrong := not_finite(dict(unwrapped(runner).named_parameters())):
            reason = f'skipping helps no more: the weights {first_of(wrong)} are not finite'
        elif self.in_a_row > self.patience:
            reason = f'{self.in_a_row} steps were skipped in a row (patience={self.patience})'
        else:
            return
        raise ValueError(f'iteration {runner.iter + 1}: {reason}. {way_back(runner)}')

    def _described(self, runner: Runner) -> str:
        model = unwrapped(runner)
        terms = _wrong_terms(self.losses.values())
        named = [f'{name}={value}{_owner(model, name)}' for name, value in terms.items()]
        where = ', '.join(named) or 'a loss of another process'
        images = _images(self.batch)
        seen = f', on {first_of(images)}' if images else ''
        weights = _owners(not_finite(dict(model.named_parameters())))
        known = f'; already not finite are the weights of {weights}' if weights else ''
        return f'not finite at iteration {runner.iter + 1}: {where}{seen}{known}'


def _changed_by_a_pass(model: Any) -> Iterable[Tensor]:
    """What a forward pass in training changes of a model: statistics, counters, averages."""
    yield from model.buffers()
    for average in getattr(model, 'averages', {}).values():
        yield from average.parameters()


def _wrong_terms(values: Mapping[str, float]) -> dict[str, float]:
    """The losses that are not finite; their sum only where each of them is."""
    wrong = {name: value for name, value in values.items()
             if 'loss' in name and not math.isfinite(value)}  # fmt: skip
    return wrong if len(wrong) < 2 else {n: v for n, v in wrong.items() if n != TOTAL}


def _owner(model: Any, term: str) -> str:
    name = term.partition('.')[0]
    if name in getattr(model, 'methods', {}):
        return f' (method {name}, which trains {", ".join(model.methods[name].updates())})'
    return f' (member {name})' if name in getattr(model, 'members', {}) else ''


def _owners(names: Iterable[str]) -> str:
    """Members and methods that own these weights."""
    owners = (name.split('.')[1] if name.startswith(('members.', 'methods.', 'averages.'))
              else name.split('.')[0] for name in names)  # fmt: skip
    return ', '.join(dict.fromkeys(owners))


def _images(batch: Mapping) -> list[str]:
    """Where the images of a batch come from."""
    return [path for sample in batch.get('data_samples', ())
            if (path := getattr(sample, 'img_path', None))]  # fmt: skip
