"""What a training step costs, and which method costs what."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from mmseg_adm.config import is_average, is_bridge, is_distillation_config
from mmseg_adm.config.registered import class_of
from mmseg_adm.config.structure import hooks_of
from mmseg_adm.engine.hooks.channels_last import ChannelsLastHook, use_channels_last
from mmseg_adm.export import plain_config
from mmseg_adm.mistakes import building
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.memory import peak_bytes, state_bytes, weight_bytes
from mmseg_adm.models.methods import DistillationMethod
from mmseg_adm.models.shared import input_channels
from mmseg_adm.models.step import DistillationStep
from mmseg_adm.paths import find_config


@dataclass
class StepCost:
    """One row of the table.

    Attributes:
        name: What ran.
        seconds: Median time of a step.
        time_ratio: Median over rounds of the time over the floor's in the same round.
        memory: Bytes: what stays (weights, optimizer) and the peak of a step above it.
        memory_ratio: Over the floor's.
        parameters: Trainable ones of the methods that ran.
    """

    name: str
    seconds: float
    time_ratio: float
    memory: int
    memory_ratio: float
    parameters: int


READER = 'frozen_members'


class _FrozenReader(DistillationMethod):
    """Reads every frozen member and learns nothing, so that the floor runs them too."""

    def __init__(self, frozen: tuple[str, ...]) -> None:
        super().__init__()
        self.frozen = frozen

    def reads(self) -> dict[str, tuple[str, ...]]:
        """Every frozen member."""
        return dict.fromkeys(self.frozen, ('logits',))

    def updates(self) -> tuple[str, ...]:
        """No one."""
        return ()

    def forward(self, step: DistillationStep) -> dict[str, Tensor]:
        """No loss."""
        return {}


def profile_step(
    config: Config,
    rounds: int = 10,
    warmup: int = 2,
    beside: Mapping[str, Callable[[], None]] | None = None,
) -> list[StepCost]:
    """Time and memory of the floor, each method, and all methods.

    The floor is the step of all members without methods; a bridge, which is there for its
    method alone, is no part of it, but of the extra parameters. Random images and labels of the
    config's batch and crop size. The variants take turns in each round, so that a machine that
    slows down slows all of them.

    Args:
        config: A distillation config.
        rounds: Rounds that count.
        warmup: Rounds before them that don't.
        beside: Other steps by name, which take their turns and have rows of their own, the last
            ones: what is compared with the distiller. Their memory is the peak alone.

    Raises:
        ValueError: If the config is no distillation config.
    """
    if not is_distillation_config(config):
        raise ValueError(
            f'expected a KnowledgeDistiller, got a {config.model.get("type")}: there is no method '
            'whose cost could be told'
        )
    for path in ('train_dataloader.batch_size', 'model.data_preprocessor.size', 'optim_wrapper'):
        key, _, option = path.partition('.')
        value = config.get(key) or {}
        for part in option.split('.') if option else []:
            value = (value or {}).get(part)
        if not value:
            raise ValueError(f'{config.filename or "the config"} has no {path}, which a step takes')
    init_default_scope(config.get('default_scope', 'mmseg'))
    with building('model'):
        model = _distiller(config)
    lay_out(model, config)
    names = list(model.methods)
    helpers = [name for name, member in config.model.members.items()
               if is_bridge(member or {}) or is_average(member or {})]  # fmt: skip
    model.methods[READER] = _FrozenReader(tuple(model.frozen))
    with building('optim_wrapper'):
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    batch = random_batch(config, model)
    variants = {'floor': [], **{name: [name] for name in names}}
    if len(names) > 1:
        variants[' + '.join(names)] = names

    def step(active: Sequence[str]) -> None:
        with _running(model, active, helpers):
            model.train_step(batch, wrapper)

    steps: dict[str, Callable[[], None]] = {
        name: partial(step, active) for name, active in variants.items()
    }
    steps |= beside or {}
    seconds = take_turns(steps, rounds, warmup)
    costs: list[StepCost] = []
    for name in steps:
        memory, parameters = 0, []
        if name in variants:
            active = variants[name]
            with _running(model, active, helpers):
                memory = weight_bytes(model) + state_bytes(wrapper, model)
                extra = [model.methods, *(model.network(name) for name in helpers if active)]
                parameters = [each for module in extra for each in module.parameters()]
        memory += peak_bytes(steps[name])
        ratios = [own / floor for own, floor in zip(seconds[name], seconds['floor'], strict=True)]
        costs.append(
            StepCost(
                name=name,
                seconds=statistics.median(seconds[name]),
                time_ratio=statistics.median(ratios),
                memory=memory,
                memory_ratio=memory / (costs[0].memory if costs else memory),
                parameters=sum(each.numel() for each in parameters if each.requires_grad),
            )
        )
    return costs


def lay_out(model: nn.Module, config: Config) -> None:
    """Lay out the weights as a training of this config would, in place."""
    if any(class_of(hook.get('type'), HOOKS) is ChannelsLastHook for _, hook in hooks_of(config)):
        use_channels_last(model)


def _distiller(config: Config) -> KnowledgeDistiller:
    model = MODELS.build(config.model)
    model.init_weights()
    # A paused member costs what it costs: the steps here train nothing.
    model.pauses_members = True
    return model.to('cuda' if torch.cuda.is_available() else 'cpu').train()


def take_turns(
    steps: Mapping[str, Callable[[], None]], rounds: int, warmup: int
) -> dict[str, list[float]]:
    """Seconds of each step in each round that counts; the order turns from round to round."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(warmup + rounds):
        for name in list(steps)[:: 1 if turn % 2 else -1]:
            elapsed = _time(steps[name])
            if turn >= warmup:
                seconds[name].append(elapsed)
    return seconds


def comparable_configs(path: str | Path) -> list[Path]:
    """The shipped configs that deploy the same student on the same data and schedule.

    Args:
        path: One of them, or its name; the others lie in the folders beside its own.

    Raises:
        ValueError: If it is a network alone.
    """
    path = find_config(path)
    config = Config.fromfile(path)
    if not is_distillation_config(config):
        raise ValueError(f'{path} trains a network alone: there is no method to compare')
    wanted = _setting(config)
    found = []
    for other in sorted(path.parent.parent.glob('[!_]*/*.py')):
        config = Config.fromfile(other)
        if is_distillation_config(config) and _setting(config) == wanted:
            found.append(other)
    return found


def _setting(config: Config) -> tuple:
    student = config.model.members[config.model.get('student', 'student')]
    return student, config.model.data_preprocessor.size, config.train_dataloader, config.train_cfg


def use_untrained_teachers(config: Config, folder: Path) -> None:
    """Give members that start from a file random weights in ``folder``: a step costs the same."""
    init_default_scope(config.get('default_scope', 'mmseg'))
    for name, member in config.model.members.items():
        if member and member.get('checkpoint'):
            network = MMSEG_MODELS.build(plain_config(config, name).model)
            member.checkpoint = str(folder / f'{name}.pth')
            torch.save({'state_dict': network.state_dict()}, member.checkpoint)


@contextmanager
def _running(
    model: KnowledgeDistiller, active: Sequence[str], helpers: Sequence[str]
) -> Iterator[None]:
    """Leave nothing in the model but its networks and the active methods with what they need."""
    parts = (model.methods, model.members, model.averages)
    everything = [(modules, dict(modules.items())) for modules in parts]
    for name in [name for name in model.methods if name not in (*active, READER)]:
        del model.methods[name]
    for name in () if active else helpers:
        del (model.averages if name in model.averages else model.members)[name]
    try:
        yield
    finally:
        for modules, before in everything:
            modules.clear()
            modules.update(before)


def random_batch(config: Config, model: Any) -> dict:
    """A batch of a config's size as its data loader would give it; labels of all classes.

    Args:
        config: Of a training.
        model: Its distiller, or a plain segmentor.
    """
    height, width = config.model.data_preprocessor.size
    size, channels = config.train_dataloader.batch_size, input_channels(model)
    meta = dict(img_shape=(height, width), ori_shape=(height, width))
    return dict(
        inputs=list(torch.randint(0, 256, (size, channels, height, width), dtype=torch.uint8)),
        data_samples=[
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.randint(0, model.out_channels, (1, height, width))),
                metainfo=dict(meta),
            )
            for _ in range(size)
        ],
    )


def _time(step: Callable[[], None]) -> float:
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    start = time.perf_counter()
    step()
    synchronize()
    return time.perf_counter() - start
