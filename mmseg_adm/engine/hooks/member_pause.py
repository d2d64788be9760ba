"""Members that sit a batch out: SwitOKD's teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmseg_adm.engine.host_copy import HostCopy
from mmseg_adm.engine.unwrap import optimizers_of, unwrapped
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class MemberPauseHook(Hook):
    """Leaves a member exactly as it is while a method pauses it.

    Losses times zero would not do: momentum and weight decay would still move it. What a batch
    adds to the gradients of a member that the batch's methods pause is dropped, whatever term
    it comes from; if nothing else was accumulated, the gradients are taken away before the
    optimizer steps, and it skips the member. Its running statistics are put back after the batch.

    Whom a batch pauses is known on the device when its forward pass ends. The backward pass goes
    on there without the host; only the optimizers' steps wait for the answer.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Watch the parameters of the members that can be paused, and their optimizers."""
        self.model = unwrapped(runner)
        methods = getattr(self.model, 'methods', {}).values()
        self.buffers: dict[str, list[Tensor]] = {}
        self.members = sorted({name for method in methods for name in method.may_pause()})
        if not self.members:
            return
        self.model.pauses_members = True
        # Who has gathered gradients in batches before this one since the last step.
        self.gathered: set[str] = set()
        self.paused: dict[str, Tensor] = {}
        self.copied: HostCopy | None = None
        self.model.register_forward_hook(self._take)
        for name in self.members:
            for parameter in self.model.network(name).parameters():
                if parameter.requires_grad:
                    parameter.register_hook(self._filter(name))
        for optimizer in optimizers_of(runner):
            optimizer.register_step_pre_hook(self._before_step)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Keep the running statistics: whether a batch pauses a member shows after its pass."""
        for name in self.members:
            self.buffers[name] = [each.clone() for each in self.model.network(name).buffers()]

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Put back what the pass has changed, and begin anew once the optimizers have stepped."""
        if not self.members:
            return
        for name, paused in self.paused.items():
            buffers = self.model.network(name).buffers()
            for buffer, kept in zip(buffers, self.buffers[name], strict=True):
                buffer.copy_(torch.where(paused, kept, buffer))
        self.gathered = set() if runner.optim_wrapper.should_update() else self._gathered()
        self.paused, self.copied = {}, None

    def _take(self, model: Any, inputs: object, losses: Any) -> None:
        """Note whom a batch pauses, at the end of its forward pass."""
        if model.training and isinstance(losses, dict):
            self.paused = model.paused_members()
            self.copied = HostCopy(torch.stack([*self.paused.values()])) if self.paused else None

    def _filter(self, name: str) -> Callable[[Tensor], Tensor | None]:
        def keep_or_drop(gradient: Tensor) -> Tensor | None:
            return gradient.masked_fill(self.paused[name], 0) if name in self.paused else None

        return keep_or_drop

    def _gathered(self) -> set[str]:
        """Who has gathered gradients since the last step; waits for the forward pass."""
        flags = [] if self.copied is None else self.copied.wait()
        paused = {name for name, flag in zip(self.paused, flags, strict=True) if flag}
        return self.gathered | (set(self.members) - paused)

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        own = {id(parameter) for group in optimizer.param_groups for parameter in group['params']}
        gathered = self._gathered()
        for name in self.members:
            if name not in gathered:
                for parameter in self.model.network(name).parameters():
                    if id(parameter) in own:
                        parameter.grad = None
