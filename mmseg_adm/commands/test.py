"""Evaluate one member of a distiller or all, or a plain segmentor."""

from __future__ import annotations

import argparse
import copy

from mmengine.config import Config
from mmengine.runner import Runner

from mmseg_adm.config import is_distillation_config
from mmseg_adm.datasets.checks import check_data_paths

from .flags import (
    add_runner_flags,
    config_parser,
    leave_process_group,
    load_config,
    prepare_runner,
)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = config_parser('Test a distiller, or a plain segmentor')
    parser.add_argument('checkpoint', help='checkpoint file')
    add_runner_flags(parser)
    parser.add_argument(
        '--member', default='all', help='whose predictions: a name, or all (default)'
    )
    parser.add_argument('--out', help='directory for the predicted label maps (one per member)')
    parser.add_argument('--show', action='store_true', help='show prediction results')
    parser.add_argument('--show-dir', help='directory for painted images (one per member)')
    parser.add_argument('--wait-time', type=float, default=2, help='the interval of show (s)')
    parser.add_argument('--tta', action='store_true', help='test time augmentation')
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    args = parse_args()
    config = load_config(args)
    prepare_runner(config, args)
    config.load_from = args.checkpoint
    config.resume = False  # a config that a resumed run dumped says otherwise
    if args.show or args.show_dir:
        draw_predictions(config, args)
    if args.out is not None:
        config.test_evaluator['output_dir'] = args.out
        config.test_evaluator['keep_results'] = True
    check_data_paths(config, splits=('test',))

    distiller = is_distillation_config(config)
    members = list(config.model.members) if distiller else []
    if args.member != 'all' and args.member not in members:
        raise ValueError(
            f"--member '{args.member}': the members are {', '.join(members)}, or all"
            if distiller
            else f"--member '{args.member}': this config is a plain {config.model.type}"
        )
    one_at_a_time = bool(args.tta or args.show or args.show_dir)
    if not distiller or (args.member == 'all' and not one_at_a_time):
        run(config, args.tta)
    else:
        # Test-time augmentation and painting work on the predictions of one network.
        for member in members if args.member == 'all' else [args.member]:
            run(only_member(config, member), args.tta)
    leave_process_group()


def only_member(config: Config, member: str) -> Config:
    """The config with ``member`` deployed, evaluated and written as a plain segmentor is."""
    config = copy.deepcopy(config)
    config.model.student = member
    config.test_cfg = dict(type='TestLoop')
    config.test_evaluator['prefix'] = member
    if config.test_evaluator.get('output_dir'):
        config.test_evaluator['output_dir'] += f'/{member}'
    # MMEngine keeps the visualiser of a name for the whole process.
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


def run(config: Config, tta: bool) -> None:
    """Test once."""
    if tta:
        config.test_dataloader.dataset.pipeline = config.tta_pipeline
        config.tta_model.module = config.model
        config.model = config.tta_model
    Runner.from_cfg(config).test()
