"""SIGTERM, by which Slurm and torchrun end a training: save first."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

import torch
from mmengine.dist import barrier, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from .checkpoint import CheckpointHook

# Iterations from the first process that was told to end to the one after which all do. None can be
# as far ahead of another: each step waits for the gradients of all, and for its own losses. Amid an
# accumulation nobody waits, so one may be ahead by as many batches as make a step.
LEAD = 4


class TrainingTermination(SystemExit):
    """A training ended by SIGTERM, after it has saved a checkpoint.

    Args:
        iteration: How many it has trained.
    """

    checkpoint: Path | None = None

    def __init__(self, iteration: int) -> None:
        # The exit status after a signal, by the custom of shells.
        super().__init__(128 + signal.SIGTERM)
        self.iteration = iteration


class TerminationHook(Hook):
    """Ends a training after SIGTERM, at the next step that ends an accumulation.

    All processes end after the same iteration, also if one alone was told to. Where somebody else
    has taken care of the signal, nothing changes. :class:`TrainingRunner` adds it, behind all
    other hooks.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.process: int | None = None
        self.told = False
        self.last: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen from here on: before, there is nothing to save."""
        # Signals reach the main thread alone, and only there they can be listened to.
        with suppress(ValueError):
            if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                signal.signal(signal.SIGTERM, self._note)
                self.process = os.getpid()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() == self.process:
            self.told = True
        else:  # a child process that was forked
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Save and end, if it is time.

        Raises:
            TrainingTermination: If it is.
        """
        iteration = runner.iter + 1
        if self.last is None:
            self.last = self._agreed(runner, iteration)
        if self.last is None or iteration < self.last or not runner.optim_wrapper.should_update():
            return
        for hook in runner.hooks:
            # An epoch cannot be resumed in its middle.
            if isinstance(hook, CheckpointHook) and not hook.by_epoch:
                hook.save_extra(runner)
        # No process leaves while another one writes.
        barrier()
        raise TrainingTermination(iteration)

    def _agreed(self, runner: Runner, iteration: int) -> int | None:
        """After which iteration all processes end; ``None`` while none of them was told to."""
        if get_world_size() == 1:
            return iteration if self.told else None
        # Over the network, not the devices: a collective would wait for them in every step.
        store = torch.distributed.distributed_c10d._get_default_store()
        key = f'mmseg_adm: end of {runner.timestamp}'
        if self.told:
            counts = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
            return int(store.compare_set(key, '', str(iteration + LEAD + counts - 1)))
        return int(store.get(key)) if store.check([key]) else None

    def stop_listening(self) -> None:
        """Give the signal back."""
        if self.process is not None:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self.process = None


def outlive_termination(worker_id: int) -> None:
    """Have a data worker end by SIGTERM of its training alone.

    Slurm sends it to all processes of a job, but the training needs its workers for the steps to
    the checkpoint, and ends them itself.

    Args:
        worker_id: Given by PyTorch.
    """
    training = os.getppid()

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != training:
            pass
        os._exit(0)

    # A handler would not be told who sent it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, daemon=True).start()
