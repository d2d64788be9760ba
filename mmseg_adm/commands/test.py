"""Evaluate all members, one of them, or a plain segmentor."""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmseg_adm.paths import check_empty_folder, check_folder

from .flags import (
    add_config_flags,
    add_runner_flags,
    check_checkpoint,
    check_config,
    config_of,
    path,
    seconds,
)

if TYPE_CHECKING:
    from mmengine.config import Config


# That are decoded before the test begins.
IMAGES = 8


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of MMSegmentation's, and ``--member``."""
    add_config_flags(parser)
    parser.add_argument('checkpoint', type=path, help='checkpoint file')
    add_runner_flags(
        parser, "where log and metrics go, into a new folder; by default test/ in the training's"
    )
    parser.add_argument(
        '--member', default='all', help='whose predictions: a name, or all (default)'
    )
    parser.add_argument(
        '--out', type=path, help='new directory for the predicted label maps (one per member)'
    )
    parser.add_argument('--show', action='store_true', help='show prediction results')
    parser.add_argument(
        '--show-dir', type=path, help='new directory for painted images (one per member)'
    )
    parser.add_argument('--wait-time', type=seconds, default=2, help='the interval of show (s)')
    parser.add_argument('--tta', action='store_true', help='test time augmentation')


def check(args: argparse.Namespace) -> None:
    """Refuse what the flags alone tell."""
    check_config(args)
    check_checkpoint(args.checkpoint)
    for flag in ('work_dir', 'out', 'show_dir'):
        if folder := getattr(args, flag):
            check_folder(f'--{flag.replace("_", "-")}', folder)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmseg_adm.config import is_distillation_config

    from .launch import check_run, leave_process_group, prepare_runner

    config = config_of(args)
    distiller = is_distillation_config(config)
    members = list(config.model.members) if distiller else []
    if args.member != 'all' and args.member not in members:
        raise ValueError(
            f"--member '{args.member}': the members are {', '.join(members)}, or all"
            if distiller
            else f"--member '{args.member}': this config is a plain {config.model.type}"
        )
    if args.tta and not (config.get('tta_pipeline') and config.get('tta_model')):
        raise ValueError('--tta needs tta_pipeline and tta_model in the config')
    evaluated = members if args.member == 'all' else [args.member]
    _check_outputs(args, evaluated if distiller else [''])
    prepare_runner(config, args.work_dir, args.launcher)
    check_run(config, splits=('test',))
    if args.work_dir is None:
        config.work_dir = str(Path(config.work_dir) / 'test')
    config.load_from = args.checkpoint
    config.resume = False  # a config that a resumed run dumped says otherwise
    if args.show or args.show_dir:
        draw_predictions(config, args)
    if args.out is not None:
        write_label_maps(config, args.out)

    one_at_a_time = bool(args.tta or args.show or args.show_dir)
    if not distiller or (args.member == 'all' and not one_at_a_time):
        test(config, args.tta)
    else:
        # Test-time augmentation and painting work on the predictions of one network.
        for member in evaluated:
            test(only_member(config, member), args.tta, member)
    leave_process_group()


def _check_outputs(args: argparse.Namespace, members: list[str]) -> None:
    """Refuse to write pictures among those of somebody else, which may have the same names."""
    for flag, folder in (('--out', args.out), ('--show-dir', args.show_dir)):
        for member in members if folder else []:
            check_empty_folder(flag, Path(folder) / member)


def only_member(config: Config, member: str) -> Config:
    """The config with ``member`` deployed, evaluated and painted as a plain segmentor is."""
    config = copy.deepcopy(config)
    config.model.student = member
    config.test_cfg = dict(type='TestLoop')
    if folder := (config.get('visualizer') or {}).get('save_dir'):
        config.visualizer.save_dir = f'{folder}/{member}'
    return config


def write_label_maps(config: Config, folder: str) -> None:
    """Have the predicted label maps written, in place.

    Raises:
        ValueError: If no metric of the config writes any.
    """
    from mmengine.registry import METRICS

    from mmseg_adm.config.registered import class_of, options_of
    from mmseg_adm.config.structure import metrics_of

    for _, metric in metrics_of(config, 'test'):
        # mmseg's metrics take what else they are given, and say nothing.
        if 'output_dir' in (options_of(class_of(metric['type'], METRICS)) or ()):
            metric.update(output_dir=folder, keep_results=True)
            return
    raise ValueError(
        '--out needs a metric in test_evaluator that writes label maps, such as '
        "dict(type='IoUMetric')"
    )


def draw_predictions(config: Config, args: argparse.Namespace) -> None:
    """Turn on mmseg's painted images.

    Raises:
        ValueError: If the config has nothing to paint with.
    """
    hook = (config.get('default_hooks') or {}).get('visualization')
    if not hook or not config.get('visualizer'):
        raise ValueError(
            '--show and --show-dir need a visualizer and default_hooks=dict(visualization=dict('
            "type='SegVisualizationHook')) in the config"
        )
    hook.draw = True
    hook.interval = 1
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir:
        config.visualizer.save_dir = args.show_dir


def test(config: Config, tta: bool, member: str | None = None) -> None:
    """Test once: everybody, or as if the network were ``member`` alone."""
    from mmseg_adm.checkpoint import check_finite
    from mmseg_adm.datasets.checks import check_images, plain_datasets
    from mmseg_adm.engine.metrics import of_member
    from mmseg_adm.engine.unwrap import unwrapped

    from .launch import EvaluationRunner, kept_if_started

    if tta:
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.tta_model.module = config.model
        config.model = config.tta_model
    runner = None
    with kept_if_started(config, lambda: runner):
        runner = EvaluationRunner.from_cfg(config)
        if member:
            of_member(runner.test_evaluator, member)
        for dataset in plain_datasets(runner.test_dataloader.dataset):
            check_images(dataset, IMAGES)
        # Weights that are not there, of another network or not finite are found here.
        runner.load_or_resume()
        check_finite(unwrapped(runner).state_dict(), config.load_from)
    runner.test()
