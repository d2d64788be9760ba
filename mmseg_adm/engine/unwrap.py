"""What stands behind a runner's wrappers."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch.optim import Optimizer


def unwrapped(runner: Runner) -> Any:
    """The runner's model without a distributed wrapper around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def optimizers_of(runner: Runner) -> list[Optimizer]:
    """The optimizers of a training, one or by group; none where only a validation runs."""
    wrapper = runner.optim_wrapper
    wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
    # Until a training is built they are settings.
    return [each.optimizer for each in wrappers if isinstance(each, OptimWrapper)]
