"""One of two processes: ``torchrun --nproc_per_node=2 worker.py FOLDER``.

Runs every check that needs a process group and writes what it found into the folder, where
test_two_processes.py reads it; that file also calls the functions here in one process.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import timedelta
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, init_default_scope
from mmengine.runner import Runner
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from factory import build, demo_config, distiller_config, raw_batch, segmentor
from method_cases import METHODS, Variant

from mmseg_adm.commands.launch import prepare_runner
from mmseg_adm.datasets import StreamDataset, StreamSampler
from mmseg_adm.engine.unwrap import unwrapped
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.methods import ADM
from mmseg_adm.models.step import DistillationStep
from mmseg_adm.preflight import inspect_run

WORLD_SIZE = 2
IMAGES_EACH = 2
IGNORED_SHARE = (0.1, 0.8)  # by rank
STRENGTHS = (0.0, 1.0, 0.0)
SIZE_OF_DATA = 7
TEACHER = 'teacher.pth'
CITY_TEACHER = 'city_teacher.pth'
CITY_CLASSES = 19
# Beside the first variant of each method; those whose name ends so have a frozen teacher, or a
# moving average of it.
FROZEN = 'frozen'
AVERAGE = 'average'
FURTHER = {
    'ADM-average': ('ADM', dict(target='mean_teacher')),
    'ADM-modulation': ('ADM', dict(consensus='modulation', divergence='modulation')),
    'ADM-repulsion': ('ADM', dict(divergence='repulsion', at='logits')),
    'CWD-features': ('CWD', dict(at='features', weight=50.0)),
    'KD-frozen': ('KD', dict(tau=2.0)),
    'KDCL-min_logit': ('KDCL', dict(ensemble='min_logit')),
}
# What would differ between shares of a batch for other reasons (batch statistics, random masks),
# or outweigh all other gradients.
OPTIONS = {
    'FFSD': dict(norm_cfg=dict(type='GN', num_groups=2), self_distillation_weight=1.0),
    'MGD': dict(mask_ratio=0.0),
}


# What SwitOKD's members predict everywhere: the teacher is right on class 0, wrong on class 1.
PREDICTIONS = {
    'student': (0.5, 0.01, *[0.49 / 3] * 3),
    'teacher': (0.8, 0.17, *[0.01] * 3),
}


def cases() -> dict[str, Variant]:
    """What is compared, by name."""
    found = {name: variants[0] for name, variants in METHODS.items()}
    for name, (method, options) in FURTHER.items():
        found[name] = found[method]._replace(options=options)
    for name, options in OPTIONS.items():
        found[name] = found[name]._replace(options=found[name].options | options)
    return found


CASES = cases()


def network(width: int, **options) -> dict:
    """A segmentor that computes the same on every share of a batch."""
    return segmentor(width, norm='GN', dropout=0.0, **options)


def distiller(name: str, folder: Path) -> nn.Module:
    """The model of one case, the same on every rank."""
    variant = CASES[name]
    frozen = name.endswith(FROZEN) or variant.members == 'bridge'
    checkpoint = str(folder / TEACHER) if frozen else None
    members = variant.networks(network(4), network(8), checkpoint)
    if name.endswith(AVERAGE):
        members['mean_teacher'] = dict(type='mmseg_adm.EMATeacher', of='teacher')
    config = distiller_config(dict(method=variant.config), members=members, student=variant.student)
    model = build(config)
    # What a hook of a run says; here a step is all that is looked at.
    model.pauses_members = True
    return model


def joined_batch() -> dict:
    """What all ranks see together, with unequal shares of ignored labels."""
    batch = raw_batch(WORLD_SIZE * IMAGES_EACH)
    generator = torch.Generator().manual_seed(1)
    for index, sample in enumerate(batch['data_samples']):
        labels = sample.gt_sem_seg.data
        share = IGNORED_SHARE[index // IMAGES_EACH]
        labels[torch.rand(labels.shape, generator=generator) < share] = 255
    return batch


def share_of(batch: dict, rank: int) -> dict:
    """The images of one rank."""
    own = slice(rank * IMAGES_EACH, (rank + 1) * IMAGES_EACH)
    return {key: values[own] for key, values in batch.items()}


def gradients(model: nn.Module, batch: dict) -> dict[str, Tensor]:
    """Gradients of one training step, by the names of the distiller's parameters."""
    plain = model.module if isinstance(model, MMDistributedDataParallel) else model
    data = plain.data_preprocessor(batch, True)
    total, _ = plain.parse_losses(model(**data, mode='loss'))
    total.backward()
    return {
        name: value.grad.clone() for name, value in plain.named_parameters() if value.requires_grad
    }


def distributed(model: nn.Module) -> MMDistributedDataParallel:
    """The wrapper that the tools use on a CPU, as it is: no find_unused_parameters."""
    return MMDistributedDataParallel(model, broadcast_buffers=False, device_ids=None)


def compare_gradients(folder: Path, divisor: str) -> None:
    """Write the averaged gradients of every case, which are those of rank 0."""
    batch = share_of(joined_batch(), get_rank())
    for name in CASES:
        found = gradients(distributed(distiller(name, folder)), batch)
        if get_rank() == 0:
            torch.save(found, folder / f'{divisor}_{name}.pth')


def start_and_stop(name: str, folder: Path) -> None:
    """Train over the start and the stop of a method; write all parameters after each step."""
    model = distributed(distiller(name, folder))
    optimizer = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    optim_wrapper = build_optim_wrapper(model, optimizer)
    batch = joined_batch()
    states = [clone_of(model.module)]
    for strength in STRENGTHS:
        model.module.methods.method.strength = strength
        model.train_step(share_of(batch, get_rank()), optim_wrapper)
        states.append(clone_of(model.module))
    torch.save(states, folder / f'states_{name}_{get_rank()}.pth')


def decide(folder: Path, name: str = 'joint') -> None:
    """Write whether SwitOKD pauses the teacher, on labels that look different to each rank."""
    own = share_of(deciding_batch(), get_rank())
    torch.save(decision(folder, own), folder / f'{name}_{get_rank()}.pth')


def decision(folder: Path, batch: dict) -> tuple[bool, float, float]:
    """Whether the teacher pauses, the gap and the threshold."""
    model = distiller('SwitOKD', folder)
    for member, probabilities in PREDICTIONS.items():
        classifier = model.network(member).decode_head.conv_seg
        classifier.weight.data.zero_()
        classifier.bias.data.copy_(torch.tensor(probabilities).log())
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    (pauses,) = model.paused_members().values()
    return bool(pauses), *(float(losses[f'method.{key}']) for key in ('gap', 'threshold'))


def deciding_batch() -> dict:
    """Where all that is labeled is class 0 on the first rank, and class 1 on the second."""
    batch = raw_batch(WORLD_SIZE * IMAGES_EACH)
    for index, sample in enumerate(batch['data_samples']):
        rank = index // IMAGES_EACH
        labels = sample.gt_sem_seg.data
        labels[labels != 255] = rank
        # The second rank has few labels: alone it decides otherwise, together it is outvoted.
        labels[:, : rank * labels.shape[1] // 2] = 255
    return batch


def clone_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def without_idle_parameters(folder: Path) -> None:
    """The same start without the zeros that keep a method's parameters in the graph."""
    problem = 'none'
    with patch.object(KnowledgeDistiller, '_keep_idle_parameters', lambda *_: None):
        try:
            start_and_stop('ADM', folder)
        except RuntimeError as error:
            problem = str(error)
    (folder / f'without_idle_{get_rank()}.txt').write_text(problem)


def build_alone(folder: Path) -> None:
    """Build, on the last rank alone, with a teacher that is still to be downloaded."""
    if get_rank() == 0:
        return

    def download(url: str, target: str, **_: object) -> None:
        shutil.copy(folder / TEACHER, target)

    address = 'https://example.org/teacher.pth'
    members = dict(student=network(4), teacher=network(8, frozen=True, checkpoint=address))
    with (
        patch.object(torch.hub, 'get_dir', lambda: str(folder)),
        patch.object(torch.hub, 'download_url_to_file', download),
    ):
        build(distiller_config(members=members))
    (path,) = (folder / 'checkpoints').glob('*.pth')
    (folder / 'alone.txt').write_text(path.name)


def read_stream(folder: Path) -> None:
    """Write what this rank reads of the data stream, also after skipping, and its seed."""
    sampler = StreamSampler(StreamDataset(range(SIZE_OF_DATA)), seed=3)
    skipped = StreamSampler(StreamDataset(range(SIZE_OF_DATA)), seed=3)
    skipped.skip(4)
    found = {
        'read': list(islice(sampler, 12)),
        'skipped': list(islice(skipped, 12)),
        'drawn seed': StreamSampler(StreamDataset(range(SIZE_OF_DATA))).seed,
    }
    (folder / f'stream_{get_rank()}.json').write_text(json.dumps(found))


def inspect(folder: Path) -> None:
    """Look at a run of which the second rank alone has a broken label map."""
    root = folder / f'city_{get_rank()}'
    if get_rank() == 1:
        path = next((root / 'gtFine' / 'train').rglob('*_labelTrainIds.png'))
        path.write_bytes(path.read_bytes()[:40])
    config = demo_config(root, '')
    init_default_scope('mmseg')
    model = build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    datasets = {'train': DATASETS.build(config.train_dataloader.dataset)}
    report = inspect_run(config, model, wrapper, datasets)
    found = {
        'failed': [check.name for check in report.failed],
        'terms': len(report.terms),
        'world size': get_world_size(),
    }
    (folder / f'preflight_{get_rank()}.json').write_text(json.dumps(found))


class States(Hook):
    """All weights and statistics after each iteration."""

    def __init__(self) -> None:
        self.states: list[dict] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        state = runner.model.module.state_dict()
        self.states.append({name: value.clone() for name, value in state.items()})


def fail_alone(folder: Path) -> None:
    """Start a run whose trial step fails in the second rank alone, before what ranks sum up."""
    config = demo_config(folder / 'city_0', folder / 'failed')
    config.default_hooks.preflight.enabled = True
    prepare_runner(config, launcher='pytorch')
    forward = ADM.forward

    def broken(method: ADM, step: DistillationStep) -> dict[str, Tensor]:
        if dist_rank == 1:
            raise RuntimeError('a trial alone')
        return forward(method, step)

    problem, dist_rank = 'none', get_rank()  # preflight is in a group of its own
    with patch.object(ADM, 'forward', broken):
        try:
            Runner.from_cfg(config).train()
        except ValueError as error:
            problem = str(error)
    (folder / f'trial_{dist_rank}.txt').write_text(problem)


def skip(folder: Path) -> None:
    """Train four steps, of which the second has a NaN in the second rank's loss alone."""
    config = demo_config(folder / 'city_0', folder / 'skipped', train_cfg__val_begin=1000)
    config.default_hooks = dict(
        finite_loss=dict(type='mmseg_adm.FiniteLossHook', action='skip'),
        schedule=dict(type='mmseg_adm.DistillScheduleHook'),
    )
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    prepare_runner(config, launcher='pytorch')
    forward, calls = ADM.forward, []

    def broken(method: ADM, step: DistillationStep) -> dict[str, Tensor]:
        losses = forward(method, step)
        calls.append(1)
        if len(calls) == 2 and get_rank() == 1:
            losses['loss_consensus'] = losses['loss_consensus'] * float('nan')
        return losses

    states = States()
    with patch.object(ADM, 'forward', broken):
        runner = Runner.from_cfg(config)
        runner.register_hook(states)
        runner.train()
    skipped = runner.message_hub.log_scalars['train/skipped_steps'].data[0].tolist()
    torch.save((states.states, skipped), folder / f'skipped_{get_rank()}.pth')


def validate(folder: Path, data_root: Path, launcher: str = 'none') -> tuple[list[dict], list[int]]:
    """Metrics of two validations with a frozen teacher, and how often it ran in each."""
    teacher = network(8, classes=CITY_CLASSES, frozen=True, checkpoint=str(folder / CITY_TEACHER))
    config = demo_config(data_root, folder / f'validated_{launcher}')
    config.model.methods = {}
    config.model.members.teacher = teacher
    config.default_hooks = {}
    prepare_runner(config, launcher=launcher)
    runner = Runner.from_cfg(config)
    runs: list[int] = []
    backbone = unwrapped(runner).network('teacher').backbone
    backbone.register_forward_hook(lambda *_: runs.append(1))
    metrics, counts = [], []
    for _ in range(2):
        runs.clear()
        metrics.append({key: float(value) for key, value in runner.val().items()})
        counts.append(len(runs))
    return metrics, counts


def main() -> None:
    """Run the checks, those that leave DDP in pieces last."""
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=60))
    assert get_world_size() == WORLD_SIZE
    read_stream(folder)
    build_alone(folder)
    inspect(folder)
    fail_alone(folder)
    compare_gradients(folder, 'joined')
    with patch.object(DistillationStep, 'reduce_mean', staticmethod(lambda total: total)):
        compare_gradients(folder, 'local')
    skip(folder)
    validated = validate(folder, folder / 'city_0', 'pytorch')
    (folder / f'validated_{get_rank()}.json').write_text(json.dumps(validated))
    decide(folder)
    with patch.object(DistillationStep, 'reduce_mean', staticmethod(lambda total: total)):
        decide(folder, 'alone')
    for name in METHODS:
        start_and_stop(name, folder)
    without_idle_parameters(folder)
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    main()
