"""What a training step takes of the memory, measured in a real one, and whether it fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mmseg_adm.mistakes import described
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.memory import (
    BusyProfiler,
    bytes_of,
    optimizers_in,
    peak_bytes,
    state_bytes,
    weight_bytes,
)

from .data import MAX_PIXELS, count_of, crop_of, reduced, repeated
from .report import Memory, Report, Status

# What PyTorch says of a channel that has one value in all, and no statistics.
PER_CHANNEL = 'more than 1 value per channel'
# Of activations, up to which a step is run in its real size on a CPU: a matter of seconds.
RUN_ON_CPU = 2**28
# Of an image of the smaller one of two steps over that of the larger one.
SHARE = 9 / 16
ADVICE = (
    'Lower train_dataloader.batch_size (optim_wrapper.accumulative_counts makes up for it), or the '
    'crop, or train with --amp'
)


class Size(NamedTuple):
    """Images of a batch, and their height and width."""

    images: int
    height: int
    width: int

    @property
    def area(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    @property
    def pixels(self) -> int:
        """In all images."""
        return self.images * self.area

    def __str__(self) -> str:
        images = 'image' if self.images == 1 else 'images'
        return f'{self.images} {images} of {self.height}x{self.width}'


def size_of(data: dict) -> Size:
    """Of a preprocessed batch."""
    return Size(count_of(data), *crop_of(data))


class Trial:
    """Training steps on a copy of all that trains.

    Args:
        model: Not the one that will train: this one does.
        optim_wrapper: Of that copy.
        processes: Of the training.
    """

    def __init__(self, model: KnowledgeDistiller, optim_wrapper: Any, processes: int) -> None:
        self.model, self.optim_wrapper = model.train(), optim_wrapper
        self.optimizers = optimizers_in(optim_wrapper)
        self.parameters = [each for optimizer in self.optimizers
                           for group in optimizer.param_groups for each in group['params']
                           if each.requires_grad]  # fmt: skip
        # What optimizers keep is there from the second step on.
        self._set_gradients()
        for optimizer in self.optimizers:
            optimizer.step()
        self._drop_gradients()
        # DistributedDataParallel gathers gradients in buckets: a second copy of them.
        exchange = bytes_of(self.parameters) if processes > 1 else 0
        self.kept = Memory(weight_bytes(model), state_bytes(optim_wrapper, model), exchange, 0, '')

    def _set_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def _drop_gradients(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def memory(self, batch: Callable[[], dict]) -> Memory:
        """What a step on a batch takes; the batch is made within it."""
        accumulates = getattr(self.optim_wrapper, '_accumulative_counts', 1) > 1

        def step() -> None:
            if accumulates:  # those of the batches before
                self._set_gradients()
            data = batch()  # is held to the end, as by MMEngine's
            with self.optim_wrapper.optim_context(self.model):
                losses = self.model(**data, mode='loss')
            total, _ = self.model.parse_losses(losses)
            self.optim_wrapper.update_params(total)

        try:
            return replace(self.kept, step=peak_bytes(step))
        finally:
            self._drop_gradients()


def measure_memory(
    trial: Trial, data: dict, tried: dict, kept: int, images: int, report: Report
) -> Memory | None:
    """What a step of the training takes: of its own size, else scaled from two smaller ones.

    On a GPU the step is run, on a CPU where that is a matter of seconds.

    Args:
        trial: Runs the steps.
        data: Preprocessed training images in full size.
        tried: The same in a size in which a step is known to run.
        kept: Bytes that such a step keeps for its backward pass.
        images: Of a batch.
        report: Takes a line where the step fails, or does not fit into a GPU.

    Returns:
        ``None`` where there is no figure.

    Raises:
        BusyProfiler: If somebody else's profiler is running.
    """
    wanted = size_of(data)._replace(images=images)
    if not torch.cuda.is_available() and kept * wanted.pixels > RUN_ON_CPU * size_of(tried).pixels:
        return scaled(_smaller_steps(trial, tried), wanted)
    try:
        memory = trial.memory(partial(repeated, data, images))
        return replace(memory, basis=f'Measured in a step of {wanted}')
    except BusyProfiler:
        raise
    except torch.OutOfMemoryError:
        pass  # Until here the error holds what the step has allocated.
    except Exception as error:  # networks and methods are anyone's
        report.add('training step', 'failed', failure_of(error, wanted))
        return None
    torch.cuda.empty_cache()
    return _without_room(trial, tried, wanted, report)


def _smaller_steps(trial: Trial, data: dict) -> dict[Size, Memory]:
    return {
        size_of(batch): trial.memory(partial(repeated, batch, count_of(batch)))
        for batch in smaller_batches(data)
    }


def _without_room(trial: Trial, tried: dict, wanted: Size, report: Report) -> Memory | None:
    """Say what a step would take that a GPU has no room for."""
    own = torch.cuda.memory_allocated()
    free, capacity = torch.cuda.mem_get_info()
    found = f'a step of {wanted} ran out of memory'
    try:
        measured = _smaller_steps(trial, tried)
    except torch.OutOfMemoryError:
        report.add('memory', 'failed', f'{found}, and so did smaller ones. {ADVICE}')
        return None
    memory = scaled(measured, wanted)
    fitting = [images for images in range(1, wanted.images)
               if scaled(measured, wanted._replace(images=images)).total <= free + own]  # fmt: skip
    most = f'{fitting[-1]} would fit' if fitting else 'a single one would not fit either'
    report.add(
        'memory',
        'failed',
        f'{found}: it takes about {_gib(memory.total)} of the {_gib(free + own)} that are free on '
        f'this GPU of {_gib(capacity)}; {most}. {ADVICE}',
    )
    return memory


def failure_of(error: Exception, size: Size) -> str:
    """What to say of a training step that fails."""
    advice = ''
    if size.images == 1 and isinstance(error, ValueError) and PER_CHANNEL in str(error):
        advice = (
            '. Batch normalization needs a second one here: set train_dataloader.batch_size to '
            '2 or more, drop_last=True where the last batch of an epoch is left with one, or '
            "norm_cfg to another type, such as 'GN'"
        )
    return f'{described(error)}. It was tried with a batch of {size} pixels{advice}'


def smaller_batches(data: dict) -> list[dict]:
    """Two, the smaller one first: of small images, or where these are small, of few."""
    small = reduced(data)
    if small is data:
        return [data, repeated(data, 2 * count_of(data))]
    return [reduced(data, SHARE * MAX_PIXELS), small]


def scaled(measured: Mapping[Size, Memory], wanted: Size) -> Memory:
    """What a step takes by those of two smaller ones, the smaller one first.

    What is allocated is a part that does not depend on the batch and one that grows with its
    pixels; it lies on a line. Where bytes grow faster than pixels, as with attention over all of
    an image, bytes per pixel lie on a line over the pixels of an image.
    """
    (small, less), (large, more) = measured.items()
    rates = less.step / small.pixels, more.step / large.pixels
    if rates[1] <= rates[0] or small.area == large.area:
        slope = (more.step - less.step) / (large.pixels - small.pixels)
        step = more.step + slope * (wanted.pixels - large.pixels)
    else:
        growth = (rates[1] - rates[0]) / (large.area - small.area)
        step = wanted.pixels * (rates[1] + growth * (wanted.area - large.area))
    basis = f'Scaled to {wanted}, which were not run, from steps of {small} and {large}'
    return replace(more, step=round(step), basis=basis)


def check_machine(memory: Memory, status: Status, report: Report) -> None:
    """Compare with what a machine without GPU has, for all processes that run on it.

    Args:
        memory: Of a step.
        status: Of the line if it has less.
        report: Takes the line.
    """
    machine = machine_memory()
    if torch.cuda.is_available() or machine is None:
        return
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))  # torchrun's
    takes = processes * memory.total
    each = '' if processes == 1 else f' in {processes} processes'
    text = f'a step takes {_gib(takes)}{each}, and this machine '
    if takes > machine.total:
        report.add('memory', status, f'{text}has {_gib(machine.total)}. {ADVICE}')
    elif takes > machine.available:
        text += f'has {_gib(machine.available)} available now. {ADVICE}'
        report.add('memory', 'warning', text)


class Machine(NamedTuple):
    """Bytes of memory that a machine has, swap included, and that are available now."""

    total: int
    available: int


def machine_memory(root: Path = Path('/')) -> Machine | None:
    """Of this machine, or of the container that this runs in; ``None`` if it is no Linux."""
    try:
        lines = (root / 'proc/meminfo').read_text().splitlines()
    except OSError:
        return None
    kib = {name: int(rest.split()[0]) for name, rest in (line.split(':') for line in lines)}
    total = 1024 * (kib['MemTotal'] + kib['SwapTotal'])
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int((root / 'sys/fs/cgroup/memory.max').read_text()))
    available = 1024 * (kib['MemAvailable'] + kib['SwapFree'])
    return Machine(total, min(total, available))


def _gib(size: int) -> str:
    return f'{size / 2**30:.1f} GiB'
