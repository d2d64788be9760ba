"""The model behind a runner."""

from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def unwrapped(runner: Runner) -> Any:
    """The runner's model without a distributed wrapper around it."""
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
