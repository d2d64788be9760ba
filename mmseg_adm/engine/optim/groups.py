"""Several optimizers behind one training step."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmseg_adm.models.methods.base import whole

DTYPES = {None: None, 'float16': torch.float16, 'bfloat16': torch.bfloat16}


class GroupOptimWrapper(OptimWrapperDict):
    """Steps several optimizers after one backward pass, with accumulation, clipping and AMP.

    MMEngine's dict of wrappers leaves the step to the model, because each wrapper has a loss
    of its own. The losses of a distiller are one sum whose terms reach different parameters:
    one backward, one loss scaler, one count of accumulated batches serve all optimizers, and
    ``train_step`` of BaseModel and of MMEngine's distributed wrapper work as they are.

    Args:
        wrappers: By group. Their own accumulation is not used; their clipping is, and the
            norm is logged as ``<group>.grad_norm``.
        accumulative_counts: Batches that make one step.
        dtype: ``'float16'`` or ``'bfloat16'`` for mixed precision, ``None`` for none.
        loss_scale: For float16: ``'dynamic'``, or the arguments of ``torch.amp.GradScaler``.
        device: Where the model runs, as autocast wants to know it.

    Raises:
        ValueError: If ``dtype`` or ``loss_scale`` is something else.
    """

    def __init__(
        self,
        wrappers: Mapping[str, OptimWrapper],
        accumulative_counts: int = 1,
        dtype: str | None = None,
        loss_scale: str | Mapping = 'dynamic',
        device: str = 'cpu',
    ) -> None:
        super().__init__(**wrappers)
        for name, wrapper in self.items():
            wrapper.grad_name = f'{name}.{getattr(wrapper, "grad_name", "grad_norm")}'
        whole('accumulative_counts', accumulative_counts, at_least=1)
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be 'float16', 'bfloat16' or None, got {dtype!r}")
        if loss_scale != 'dynamic' and not isinstance(loss_scale, Mapping):
            raise ValueError(
                "loss_scale must be 'dynamic' or a dict of arguments of torch.amp.GradScaler, "
                f'got {loss_scale!r}'
            )
        self.device, self.dtype = device, DTYPES[dtype]
        options = {} if isinstance(loss_scale, str) else dict(loss_scale)
        self.loss_scaler = torch.amp.GradScaler(device, enabled=dtype == 'float16', **options)
        # As in OptimWrapper.__init__, which OptimWrapperDict does not call.
        self._accumulative_counts = accumulative_counts
        self._inner_count, self._max_counts, self._remainder_counts = 0, -1, -1

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Autocast, and no synchronization of gradients amid an accumulation."""
        with (
            OptimWrapper.optim_context(self, model),
            torch.autocast(self.device, self.dtype, enabled=self.dtype is not None),
        ):
            yield

    def initialize_count_status(self, model: nn.Module, cur_iter: int, max_iters: int) -> None:
        """Begin to count at ``cur_iter``."""
        OptimWrapper.initialize_count_status(self, model, cur_iter, max_iters)

    def update_params(
        self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None
    ) -> None:
        """Backward; after the last batch of an accumulation also step and zero."""
        OptimWrapper.update_params(self, loss, step_kwargs, zero_kwargs)

    def backward(self, loss: Tensor, **kwargs) -> None:
        """Backward of the scaled loss."""
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs) -> None:
        """Unscale, clip and step each optimizer, then update the scale once."""
        for wrapper in self.values():
            if _has_gradient(wrapper):
                self.loss_scaler.unscale_(wrapper)
                # By the wrapper's own step, which clips and which schedules count.
                self.loss_scaler.step(wrapper, **kwargs)
            else:
                wrapper.step(**kwargs)  # The scaler refuses an optimizer without any.
        self.loss_scaler.update()

    def state_dict(self) -> dict:
        """The state of each optimizer, and of the scaler where there is one."""
        state = super().state_dict()
        if self.loss_scaler.is_enabled():
            state['loss_scaler'] = self.loss_scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        """Load :meth:`state_dict`.

        Raises:
            ValueError: If it was saved with other groups.
        """
        groups = {name: state for name, state in state_dict.items() if name != 'loss_scaler'}
        if groups.keys() != self.optim_wrappers.keys():
            raise ValueError(
                f'the checkpoint holds optimizers for {", ".join(groups)}; now they are '
                f'{", ".join(self.keys())}: resume with the optim_wrapper of the run before'
            )
        super().load_state_dict(groups)
        if 'loss_scaler' in state_dict and self.loss_scaler.is_enabled():
            self.loss_scaler.load_state_dict(state_dict['loss_scaler'])


def _has_gradient(wrapper: OptimWrapper) -> bool:
    groups = wrapper.optimizer.param_groups
    return any(parameter.grad is not None for group in groups for parameter in group['params'])
