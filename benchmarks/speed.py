"""What distillation costs beside the bare networks: training steps, memory, validation.

python benchmarks/speed.py --rounds 20

For each pair and number of classes one table of training steps, over the floor (the step of all
members without a method) and over the plain networks (MMSegmentation's own steps and, of a frozen
teacher, its forward pass), and one line on the validation of all members. Everything in a table is
timed in turns. Random images; nothing is downloaded. ``--mmrazor`` adds a row of CWD as MMRazor
trains it, where that can be imported.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmseg.models.segmentors import BaseSegmentor
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import DataLoader, Dataset

import mmseg_adm
from mmseg_adm.benchmark.cost import multiply_adds_of_networks
from mmseg_adm.benchmark.profiling import (
    StepCost,
    lay_out,
    profile_step,
    random_batch,
    take_turns,
)
from mmseg_adm.benchmark.provenance import device_name, package_commit
from mmseg_adm.commands.launch import enable_amp
from mmseg_adm.commands.quiet import log_only
from mmseg_adm.config import read_config, recipes
from mmseg_adm.engine import QuietRunner

HERE = Path(__file__).parent


class Pair(NamedTuple):
    """Two plain configs.

    Attributes:
        student: Path or name.
        teacher: Likewise.
        needs_gpu: Whether a step takes minutes without one.
        bridge: Where SOKD's begins, if that does not follow from the teacher.
    """

    student: str
    teacher: str
    needs_gpu: bool = False
    bridge: str | None = None


SMALL = 'mmseg_adm::pspnet/pspnet_r18-w{}-d8_1xb8-demo_synthetic-city-96x128.py'
LITE = f'{HERE}/networks/deeplabv3plus_efficientnet-lite{{}}-s16_camvid-96x128.py'
LARGE = 'mmseg_adm::pspnet/pspnet_r{}-d8_4xb2-80k_cityscapes-512x1024.py'
SQUARE = 'mmseg_adm::pspnet/pspnet_r{}-d8_4xb4-80k_ade20k-512x512.py'
PAIRS = {
    'pspnet-r18': Pair(SMALL.format(16), SMALL.format(32)),
    'efficientnet-lite': Pair(LITE.format(0), LITE.format(2), bridge='stages.4'),
    'pspnet-r101-512x1024': Pair(LARGE.format(18), LARGE.format(101), needs_gpu=True),
    'pspnet-r101-512x512': Pair(SQUARE.format(18), SQUARE.format(101), needs_gpu=True),
}
PLAIN = 'plain networks'
MMRAZOR = 'cwd of MMRazor'
CUDA = torch.cuda.is_available()
PRECISIONS = ('float32', 'float16', 'bfloat16') if CUDA else ('float32', 'bfloat16')
# Of a validation.
BATCHES = 4


def main() -> None:
    """Print the tables."""
    args = parse_args()
    log_only('ERROR')
    init_default_scope('mmseg')
    if not CUDA:
        torch.set_num_threads(args.threads)
    sys.path.append(str(HERE))
    console = Console(width=200)
    console.print(machine())
    for name in args.pairs:
        if PAIRS[name].needs_gpu and not CUDA:
            console.print(f'\n{name}: not measured, it needs a GPU')
            continue
        for classes in args.classes:
            for precision in args.precision:
                pair = PAIRS[name]
                configs = networks_of(pair, classes)
                console.print(f'\n{name}, {classes} classes, {precision}\n')
                costs = steps(pair, configs, args.methods, precision, args.rounds, args.mmrazor)
                console.print(table_of(costs))
                console.print(f'\n{validation(pair, configs, args.rounds)}')


def parse_args() -> argparse.Namespace:
    """What is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--pairs', nargs='+', choices=PAIRS, default=list(PAIRS))
    parser.add_argument('--classes', nargs='+', type=int, default=[19, 150])
    parser.add_argument('--methods', nargs='+', choices=recipes(), default=list(recipes()))
    parser.add_argument(
        '--precision', nargs='+', choices=PRECISIONS, default=['float32'],
        help='others than float32 under autocast; on a CPU there is bfloat16 alone',
    )  # fmt: skip
    parser.add_argument(
        '--mmrazor', action='store_true', help="MMRazor's CWD in a row behind ours, if it imports"
    )
    parser.add_argument('--rounds', type=int, default=20, help='rounds that are timed')
    parser.add_argument('--threads', type=int, default=1, help='of a CPU')
    args = parser.parse_args()
    if args.mmrazor:
        try:
            import_module('mmrazor.engine')
        # It asserts that it knows the versions of its dependencies.
        except (ImportError, AssertionError) as error:
            parser.error(f'--mmrazor: {error}')
    return args


def networks_of(pair: Pair, classes: int) -> dict[str, Config]:
    """The plain configs of a pair, for so many classes and without weights to download."""
    configs = {}
    for role in ('student', 'teacher'):
        config = read_config(getattr(pair, role))
        config.model.pop('pretrained', None)
        config.model.backbone.update(pretrained=None, init_cfg=None)
        for key in ('decode_head', 'auxiliary_head'):
            if head := config.model.get(key):
                head.num_classes = classes
                head.loss_decode.pop('class_weight', None)
        configs[role] = config
    return configs


def paired(pair: Pair, configs: dict[str, Config], method: str, folder: str) -> Config:
    """The config that distils, its teacher's weights random ones in ``folder``."""
    network = MODELS.build(configs['teacher'].model)
    weights = Path(folder, 'teacher.pth')
    torch.save({'state_dict': network.state_dict()}, weights)
    config = mmseg_adm.pair(**configs, method=method, teacher_checkpoint=weights)
    if 'bridge' in config.model.members and pair.bridge:
        config.model.members.bridge.split = pair.bridge
    return config


class MethodCost(NamedTuple):
    """What a step of a method costs.

    Attributes:
        step: With all its methods.
        floor: Without.
        plain: Of the plain networks.
        networks: Multiply-adds of all its networks, over those of student and teacher.
    """

    step: StepCost
    floor: StepCost
    plain: StepCost
    networks: float


def steps(
    pair: Pair,
    configs: dict[str, Config],
    methods: Sequence[str],
    precision: str,
    rounds: int,
    mmrazor: bool = False,
) -> dict[str, MethodCost]:
    """By method."""
    costs = {}
    for method in methods:
        with TemporaryDirectory() as folder:
            config = paired(pair, configs, method, folder)
            plain = copy.deepcopy(configs)
            for each in (config, *plain.values()) if precision != 'float32' else ():
                enable_amp(each)
                if CUDA:
                    each.optim_wrapper.dtype = precision
            beside = {PLAIN: plain_steps(plain, bool(config.model.members.teacher.get('frozen')))}
            if mmrazor and method == 'cwd':
                beside[MMRAZOR] = mmrazor_step(plain)
            measured = {cost.name: cost for cost in profile_step(config, rounds, beside=beside)}
            # What all methods of a config cost together comes last.
            *_, full = (name for name in measured if name not in beside)
            networks = over_plain_networks(config)
            for name, step in {method: full, MMRAZOR: MMRAZOR}.items():
                if step in measured:
                    costs[name] = MethodCost(
                        measured[step], measured['floor'], measured[PLAIN], networks
                    )
    return costs


def over_plain_networks(config: Config) -> float:
    """Multiply-adds of all networks of a step, over those of student and teacher alone."""
    counts = multiply_adds_of_networks(config, 1)
    assert counts is not None  # networks of this module, which can be traced
    return sum(counts.values()) / (counts['student'] + counts['teacher'])


def plain_steps(configs: dict[str, Config], frozen: bool) -> Callable[[], None]:
    """A step of each network as MMSegmentation trains it; of a frozen teacher a forward pass."""
    tried = []
    for role, config in configs.items():
        network = built(config)
        batch = random_batch(config, network)
        if frozen and role == 'teacher':
            tried.append(partial(forward, network.eval(), batch))
        else:
            wrapper = build_optim_wrapper(network.train(), config.optim_wrapper)
            tried.append(partial(network.train_step, batch, wrapper))
    return partial(in_turn, tried)


def mmrazor_step(configs: dict[str, Config]) -> Callable[[], None]:
    """A step of CWD as MMRazor 1.0 ships it for PSPNet.

    Never in channels_last: its loss takes a view of the logits that this layout has not.
    """
    logits = dict(logits=dict(type='ModuleOutputs', source='decode_head.conv_seg'))
    network = MODELS.build(
        dict(
            type='mmrazor.SingleTeacherDistill',
            _scope_='mmrazor',
            architecture=dict(configs['student'].model, _scope_='mmseg'),
            teacher=dict(configs['teacher'].model, _scope_='mmseg'),
            data_preprocessor=dict(configs['student'].model.data_preprocessor, _scope_='mmseg'),
            distiller=dict(
                type='ConfigurableDistiller',
                student_recorders=logits,
                teacher_recorders=logits,
                distill_losses=dict(
                    cwd=dict(type='ChannelWiseDivergence', tau=1, loss_weight=5),
                ),
                loss_forward_mappings=dict(
                    cwd=dict(
                        preds_S=dict(from_student=True, recorder='logits'),
                        preds_T=dict(from_student=False, recorder='logits'),
                    )
                ),
            ),
        )
    )
    network.to('cuda' if CUDA else 'cpu')
    batch = random_batch(configs['student'], network.student)
    network.train()
    wrapper = build_optim_wrapper(network, configs['student'].optim_wrapper)
    return partial(network.train_step, batch, wrapper)


def built(config: Config) -> Any:
    """On its device, with random weights."""
    network = MODELS.build(config.model)
    network.init_weights()
    lay_out(network.to('cuda' if CUDA else 'cpu'), config)
    return network


@torch.no_grad()
def forward(network: BaseSegmentor, batch: dict) -> None:
    """The logits of a batch."""
    network(network.data_preprocessor(batch, False)['inputs'], mode='tensor')


def in_turn(calls: Sequence[Callable[[], object]]) -> None:
    """Call each."""
    for call in calls:
        call()


def table_of(costs: dict[str, MethodCost]) -> Table:
    """A row for each method."""
    table = Table(box=MARKDOWN)
    for column in (
        'method', 's / step', 'time over floor', 'memory over floor', 'floor over plain networks',
        'step over plain networks', 'multiply-adds over plain networks',
    ):  # fmt: skip
        table.add_column(column, justify='left' if column == 'method' else 'right')
    for method, cost in costs.items():
        step, plain = cost.step, cost.plain.time_ratio
        table.add_row(
            method,
            f'{step.seconds:.3f}',
            f'{step.time_ratio:.3f}',
            # Of a step beside ours, the peak alone is known.
            'not measured' if method == MMRAZOR else f'{step.memory_ratio:.3f}',
            f'{cost.floor.time_ratio / plain:.3f}',
            f'{step.time_ratio / plain:.3f}',
            f'{cost.networks:.3f}',
        )
    return table


class RandomImages(Dataset):
    """Images in memory, with labels."""

    def __init__(self, config: Config, network: BaseSegmentor) -> None:
        self.metainfo = dict(classes=[f'class {index}' for index in range(network.out_channels)])
        batches = [random_batch(config, network) for _ in range(BATCHES)]
        self.samples = [
            dict(inputs=image, data_samples=sample)
            for batch in batches
            for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return self.samples[index]


def validation(pair: Pair, configs: dict[str, Config], rounds: int) -> str:
    """Our validation of both members, over MMSegmentation's of each and over the bare forwards."""
    networks = {role: built(config).eval() for role, config in configs.items()}
    images = RandomImages(configs['student'], networks['student'])
    with TemporaryDirectory() as folder:
        config = paired(pair, configs, 'dml', folder)
        model = built(config)
        ours = runner_of(model, folder, images, 'mmseg_adm.MembersValLoop')
        plain = [runner_of(network, folder, images, 'ValLoop') for network in networks.values()]
        bare = [partial(predict, network, images) for network in networks.values()]
        seconds = take_turns(
            {
                'ours': ours.val,
                'plain': partial(in_turn, [runner.val for runner in plain]),
                'bare': partial(in_turn, bare),
            },
            rounds,
            warmup=2,
        )
    ratios = {
        name: statistics.median(
            own / other for own, other in zip(seconds['ours'], seconds[name], strict=True)
        )
        for name in ('plain', 'bare')
    }
    return (
        f'Validation of both members: {statistics.median(seconds["ours"]):.3f} s for {len(images)} '
        f'images, {ratios["plain"]:.3f} of the two plain validations, {ratios["bare"]:.3f} of the '
        'bare predictions.'
    )


def runner_of(model: dict | nn.Module, folder: str, images: Dataset, loop: str) -> QuietRunner:
    """A runner that validates."""
    return QuietRunner(
        model=model,
        work_dir=folder,
        val_dataloader=DataLoader(images, batch_size=1, collate_fn=pseudo_collate),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        val_cfg=dict(type=loop),
        log_level='ERROR',
        experiment_name='speed',
        default_scope='mmseg',
    )


@torch.no_grad()
def predict(network: BaseSegmentor, images: RandomImages) -> None:
    """Predict image by image, as a test does."""
    for index in range(len(images)):
        network.test_step(pseudo_collate([images[index]]))


def machine() -> str:
    """What the figures belong to."""
    threads = '' if CUDA else f', {torch.get_num_threads()} thread(s)'
    return f'{device_name()}{threads}, torch {torch.__version__}, commit {package_commit()}'


if __name__ == '__main__':
    main()
