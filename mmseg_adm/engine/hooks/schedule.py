"""When each method starts, how it ramps up, and when it stops."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.optim import Optimizer

from mmseg_adm.engine.unwrap import optimizers_of, unwrapped
from mmseg_adm.registry import HOOKS

RAMPS: dict[str, Callable[[float], float]] = {
    'linear': lambda x: x,
    'cosine': lambda x: 0.5 * (1 - math.cos(math.pi * x)),
    'exponential': lambda x: math.exp(-5 * (1 - x) ** 2),
}
OPTIONS = ('start', 'ramp', 'ramp_iters', 'stop')


def method_strength(
    iteration: int,
    start: int = 0,
    ramp: str | None = None,
    ramp_iters: int = 0,
    stop: int | None = None,
) -> float:
    """The factor of a method's losses in an iteration.

    Args:
        iteration: Counted from 0.
        start: The first iteration in which the method runs.
        ramp: How the factor rises to 1, with x from 0 to 1: ``'linear'``, ``'cosine'`` or
            ``'exponential'``, exp(-5 (1 - x)^2); ``None`` jumps.
        ramp_iters: In how many iterations.
        stop: The first iteration in which it no longer runs.
    """
    if iteration < start or (stop is not None and iteration >= stop):
        return 0.0
    if ramp is None or iteration - start + 1 >= ramp_iters:
        return 1.0
    return RAMPS[ramp]((iteration - start + 1) / ramp_iters)


@HOOKS.register_module()
class DistillScheduleHook(Hook):
    """Sets the strength of each method before each iteration.

    At strength 0 a method does not run, and a frozen teacher that no running method reads is
    not run either; its own modules are left exactly as they are, where momentum and weight decay
    would move them by a gradient of zero. The strength follows from the iteration alone: nothing to
    resume. That of a method with a schedule is logged as ``<method>.strength``.

    Args:
        schedules: By method: ``start``, ``ramp``, ``ramp_iters``, ``stop`` as in
            :func:`method_strength`. Methods without one run at full strength.

    Raises:
        ValueError: If an option is unknown or its value impossible.
    """

    priority = 'HIGH'

    def __init__(self, schedules: Mapping[str, Mapping] | None = None) -> None:
        self.schedules = {name: dict(options) for name, options in (schedules or {}).items()}
        for name, options in self.schedules.items():
            _check(name, **options)

    def before_train(self, runner: Runner) -> None:
        """Refuse schedules of methods that the model doesn't have.

        Raises:
            ValueError: With the methods that it has.
        """
        methods = self._methods(runner)
        for name in self.schedules:
            if name not in methods:
                raise ValueError(
                    f"schedule for '{name}', but the methods are: {', '.join(methods) or 'none'}"
                )
        # The methods that ran since the optimizers stepped last.
        self.ran: set[str] = set()

        def leave_idle_ones(optimizer: Optimizer, *_: object) -> None:
            for name, method in methods.items():
                if name not in self.ran:
                    for parameter in method.parameters():
                        parameter.grad = None

        for optimizer in optimizers_of(runner):
            optimizer.register_step_pre_hook(leave_idle_ones)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Set the strengths of this iteration."""
        for name, method in self._methods(runner).items():
            method.strength = method_strength(runner.iter, **self.schedules.get(name, {}))
            if method.strength > 0:
                self.ran.add(name)
            if self.schedules.get(name):
                runner.message_hub.update_scalar(f'train/{name}.strength', method.strength)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Begin anew once the optimizers have stepped."""
        if runner.optim_wrapper.should_update():
            self.ran.clear()

    @staticmethod
    def _methods(runner: Runner) -> Mapping:
        model = unwrapped(runner)
        return getattr(model, 'methods', {})


def _check(name: str, **options: object) -> None:
    for option, value in options.items():
        if option not in OPTIONS:
            raise ValueError(
                f"the schedule of '{name}' has no option '{option}': {', '.join(OPTIONS)}"
            )
        if option == 'ramp':
            valid = value is None or value in RAMPS
            expected = f'{", ".join(map(repr, RAMPS))} or None'
        else:
            optional = option == 'stop' and value is None
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            valid, expected = optional or whole, 'an integer >= 0'
        if not valid:
            raise ValueError(
                f"the schedule of '{name}': {option} must be {expected}, got {value!r}"
            )
    if options.get('ramp') and not options.get('ramp_iters'):
        raise ValueError(f"the schedule of '{name}' has a ramp without ramp_iters")
    if options.get('ramp_iters') and not options.get('ramp'):
        raise ValueError(f"the schedule of '{name}' has ramp_iters without a ramp")
    start, stop = options.get('start', 0), options.get('stop')
    if stop is not None and stop <= start:  # type: ignore[operator]
        raise ValueError(f"the schedule of '{name}' stops at {stop}, before it starts at {start}")
