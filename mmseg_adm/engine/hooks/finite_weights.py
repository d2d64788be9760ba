"""Nothing is saved, validated or exported that is not finite."""

from __future__ import annotations

from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor

from mmseg_adm.checkpoint import check_finite, first_of, not_finite
from mmseg_adm.engine.unwrap import optimizers_of, unwrapped
from mmseg_adm.engine.way_back import way_back
from mmseg_adm.models.methods.base import whole
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class FiniteWeightsHook(Hook):
    """Looks at weights, buffers and optimizer state before a checkpoint or a validation.

    So too before an export, which is made of a checkpoint; and at what a checkpoint holds when it
    is loaded. ``EMAHook``'s averages are among the weights. Each look waits for the device once.

    Args:
        interval: Look after every so many steps as well; 0 does not. With 1 a training stops at
            the step that made a weight NaN, and names the weight.

    Raises:
        ValueError: If ``interval`` is something else.
    """

    # Before EMAHook takes the weights in.
    priority = 'VERY_HIGH'

    def __init__(self, interval: int = 0) -> None:
        self.interval = whole('interval', interval)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse a checkpoint that holds what is not finite."""
        check_finite(
            checkpoint.get('state_dict', checkpoint), runner._load_from or 'the checkpoint'
        )

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Look by interval."""
        if self.every_n_train_iters(runner, self.interval):
            _check(runner, f'after the step of iteration {runner.iter + 1}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write what is not finite."""
        _check(runner, 'before a checkpoint', 'It is not written. ')

    def before_val(self, runner: Runner) -> None:
        """Refuse to validate what is not finite."""
        _check(runner, f'before the validation after iteration {runner.iter}')


def _check(runner: Runner, when: str, consequence: str = '') -> None:
    """Raise ``ValueError`` if anything that a run carries on is not finite."""
    if wrong := not_finite(_carried_on(runner)):
        raise ValueError(f'not finite {when}: {first_of(wrong)}. {consequence}{way_back(runner)}')


def _carried_on(runner: Runner) -> dict[str, Tensor]:
    """Weights, buffers, averages and optimizer state by name."""
    model = unwrapped(runner)
    tensors = dict(model.state_dict())
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            averaged = hook.ema_model.module.state_dict()
            tensors |= {f'averaged {name}': tensor for name, tensor in averaged.items()}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for optimizer in optimizers_of(runner):
        for parameter, state in optimizer.state.items():
            tensors |= {f'{key} of {names[parameter]} in the optimizer': value
                        for key, value in state.items() if isinstance(value, Tensor)}  # fmt: skip
    return tensors
