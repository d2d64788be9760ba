"""What the log of a training shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmengine.runner import LogProcessor as MMEngineLogProcessor
from mmengine.runner import Runner
from torch.optim import Optimizer

from mmseg_adm.registry import LOG_PROCESSORS

from .unwrap import optimizers_of, unwrapped

# Below it, digits after the point say little.
SMALL = 0.1


@LOG_PROCESSORS.register_module()
class LogProcessor(MMEngineLogProcessor):
    """MMEngine's, which knows one learning rate an optimizer and repeats what it has seen last.

    Of a distiller it shows :func:`learning_rates`, and nothing of a method that does not run.
    Small values keep their significant digits. Arguments are those of
    :class:`mmengine.runner.LogProcessor`.
    """

    def get_log_after_iter(self, runner: Runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """Values by name, and the line of them."""
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        digits = self.num_digits
        for key, value in tag.items():
            if isinstance(value, float) and abs(value) < SMALL:
                name = key.removeprefix(f'{mode}/')
                text = text.replace(f' {name}: {value:.{digits}f}', f' {name}: {value:.{digits}g}')
        return tag, text

    def _collect_scalars(
        self, custom_cfg: list[dict], runner: Runner, mode: str, reserve_prefix: bool = False
    ) -> dict:
        scalars = super()._collect_scalars(custom_cfg, runner, mode, reserve_prefix)
        model = unwrapped(runner)
        if mode != 'train' or not hasattr(model, 'methods'):
            return scalars
        prefix = 'train/' if reserve_prefix else ''
        stopped = tuple(
            f'{prefix}{name}.' for name, method in model.methods.items() if method.strength == 0
        )
        rates = learning_rates(model, optimizers_of(runner))
        shown = {f'{prefix}{name}': rate for name, rate in rates.items()}
        for key, value in scalars.items():
            ran = key.endswith('.strength') or not key.startswith(stopped)
            if ran and not key.endswith('lr'):
                shown[key] = value
        return shown


def learning_rates(model: Any, optimizers: Iterable[Optimizer]) -> dict[str, float]:
    """``<name>.lr`` of each member and method with parameters, however optimizers share them.

    It is the highest one; ``<name>.min_lr`` stands beside it where a part has a lower one.
    """
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    rates = {}
    for name, module in (*model.members.items(), *model.methods.items()):
        own = {id(parameter) for parameter in module.parameters()}
        found = [group['lr'] for group in groups
                 if any(id(parameter) in own for parameter in group['params'])]  # fmt: skip
        if found:
            rates[f'{name}.lr'] = max(found)
            if min(found) < max(found):
                rates[f'{name}.min_lr'] = min(found)
    return rates
