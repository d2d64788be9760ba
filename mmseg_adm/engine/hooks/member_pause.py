"""Members that sit a batch out: SwitOKD's teacher."""

from __future__ import annotations

from collections.abc import Callable

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmseg_adm.engine.unwrap import optimizers_of, unwrapped
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class MemberPauseHook(Hook):
    """Leaves a member exactly as it is while a method pauses it.

    Losses times zero would not do: momentum and weight decay would still move it. What a batch
    adds to the gradients of a member that the batch's methods pause is dropped, whatever term
    it comes from; if nothing else was accumulated, the gradients are taken away before the
    optimizer steps, and it skips the member. Its running statistics are put back after the batch.
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
        # Who has gathered gradients since the last step.
        self.gathered: set[str] = set()
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
        for name in self.model.paused_members:
            buffers = self.model.network(name).buffers()
            for buffer, kept in zip(buffers, self.buffers[name], strict=True):
                buffer.copy_(kept)
        if runner.optim_wrapper.should_update():
            self.gathered.clear()

    def _filter(self, name: str) -> Callable[[Tensor], Tensor | None]:
        def keep_or_drop(gradient: Tensor) -> Tensor | None:
            if name in self.model.paused_members:
                return torch.zeros_like(gradient)
            self.gathered.add(name)
            return None

        return keep_or_drop

    def _before_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        own = {id(parameter) for group in optimizer.param_groups for parameter in group['params']}
        for name in self.members:
            if name not in self.gathered:
                for parameter in self.model.network(name).parameters():
                    if id(parameter) in own:
                        parameter.grad = None
