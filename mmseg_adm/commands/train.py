"""Train a distiller, or a plain segmentor on the same data and schedule."""

from mmengine.runner import Runner

from mmseg_adm.datasets.checks import check_data_paths

from .flags import (
    add_runner_flags,
    config_parser,
    enable_amp,
    leave_process_group,
    load_config,
    prepare_runner,
)


def main() -> None:
    """Run the command line."""
    parser = config_parser(
        'Train a distiller, a pair of networks, or a plain segmentor', pairs=True
    )
    add_runner_flags(parser)
    parser.add_argument(
        '--resume',
        action='store_true',
        help='resume from the latest checkpoint in the work_dir automatically',
    )
    parser.add_argument(
        '--amp', action='store_true', help='enable automatic-mixed-precision training'
    )
    parser.add_argument(
        '--skip-preflight', action='store_true', help='start without looking at the run first'
    )
    args = parser.parse_args()
    config = load_config(args)
    prepare_runner(config, args)
    if args.amp:
        enable_amp(config)
    preflight = (config.get('default_hooks') or {}).get('preflight')
    if args.skip_preflight and preflight:
        preflight.enabled = False
    config.resume = args.resume
    check_data_paths(config)
    Runner.from_cfg(config).train()
    leave_process_group()
