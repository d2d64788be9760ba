"""Evaluate all members, one of them, or a plain segmentor."""

from __future__ import annotations

import argparse
import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .flags import add_config_flags, add_runner_flags, config_of

if TYPE_CHECKING:
    from mmengine.config import Config


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Those of MMSegmentation's, and ``--member``."""
    add_config_flags(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    add_runner_flags(
        parser, "where log and metrics go, into a new folder; by default test/ in the training's"
    )
    parser.add_argument(
        '--member', default='all', help='whose predictions: a name, or all (default)'
    )
    parser.add_argument('--out', help='directory for the predicted label maps (one per member)')
    parser.add_argument('--show', action='store_true', help='show prediction results')
    parser.add_argument('--show-dir', help='directory for painted images (one per member)')
    parser.add_argument('--wait-time', type=float, default=2, help='the interval of show (s)')
    parser.add_argument('--tta', action='store_true', help='test time augmentation')


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    from mmseg_adm.config import is_distillation_config
    from mmseg_adm.datasets.checks import check_data_paths

    from .launch import leave_process_group, prepare_runner

    config = config_of(args)
    distiller = is_distillation_config(config)
    members = list(config.model.members) if distiller else []
    if args.member != 'all' and args.member not in members:
        raise ValueError(
            f"--member '{args.member}': the members are {', '.join(members)}, or all"
            if distiller
            else f"--member '{args.member}': this config is a plain {config.model.type}"
        )
    prepare_runner(config, args.work_dir, args.launcher)
    if args.work_dir is None:
        config.work_dir = str(Path(config.work_dir) / 'test')
    config.load_from = args.checkpoint
    config.resume = False  # a config that a resumed run dumped says otherwise
    if args.show or args.show_dir:
        draw_predictions(config, args)
    if args.out is not None:
        config.test_evaluator['output_dir'] = args.out
        config.test_evaluator['keep_results'] = True
    check_data_paths(config, splits=('test',))

    one_at_a_time = bool(args.tta or args.show or args.show_dir)
    if not distiller or (args.member == 'all' and not one_at_a_time):
        test(config, args.tta)
    else:
        # Test-time augmentation and painting work on the predictions of one network.
        for member in members if args.member == 'all' else [args.member]:
            test(only_member(config, member), args.tta)
    leave_process_group()


def only_member(config: Config, member: str) -> Config:
    """The config with ``member`` deployed, evaluated and written as a plain segmentor is."""
    config = copy.deepcopy(config)
    config.model.student = member
    config.test_cfg = dict(type='TestLoop')
    config.test_evaluator['prefix'] = member
    if config.test_evaluator.get('output_dir'):
        config.test_evaluator['output_dir'] += f'/{member}'
    # MMEngine keeps the visualizer of a name for the whole process.
    config.visualizer['name'] += f'_{member}'
    if config.visualizer.get('save_dir'):
        config.visualizer['save_dir'] += f'/{member}'
    return config


def draw_predictions(config: Config, args: argparse.Namespace) -> None:
    """Turn on mmseg's painted images."""
    hook = config.default_hooks.visualization
    hook.draw = True
    hook.interval = 1
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir:
        config.visualizer.save_dir = args.show_dir


def test(config: Config, tta: bool) -> None:
    """Test once."""
    from mmseg_adm.checkpoint import check_finite
    from mmseg_adm.engine.unwrap import unwrapped

    from .launch import EvaluationRunner, kept_if_started

    if tta:
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.tta_model.module = config.model
        config.model = config.tta_model
    with kept_if_started(config.work_dir):
        runner = EvaluationRunner.from_cfg(config)
        # Weights that are not there, of another network or not finite are found here.
        runner.load_or_resume()
        check_finite(unwrapped(runner).state_dict(), config.load_from)
    runner.test()
