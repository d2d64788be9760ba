"""What the tools share: their flags, and the way from a config file to a config that runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier, is_distributed
from mmengine.logging import print_log

from mmseg_adm.checkpoint import install_safe_loading, trust_checkpoints
from mmseg_adm.config import drop_downloads, pair, read_config, resolve_config

CFG_OPTIONS_HELP = (
    'override settings of the config: key-value pairs in xxx=yyy format, lists as key="[a,b]" '
    'or key=a,b, without white space'
)


PAIR_FLAGS = ('teacher', 'method', 'teacher_checkpoint', 'dataset_from')


def config_parser(description: str, pairs: bool = False) -> argparse.ArgumentParser:
    """A parser with what every tool takes: a config, overrides, and how to load weights."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        'config', nargs='?' if pairs else None, help='config file path, or a name: mmseg::...'
    )
    if pairs:
        _add_pair_flags(parser)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help=CFG_OPTIONS_HELP)
    parser.add_argument(
        '--no-pretrained',
        action='store_true',
        help='drop every checkpoint that would have to be downloaded',
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='also load local checkpoints that hold more than weights: runs the code in them',
    )
    return parser


def _add_pair_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('two networks in place of a config')
    group.add_argument('--student', help='config of the network that is deployed, or its name')
    group.add_argument('--teacher', help='config of the other one, or its name')
    group.add_argument('--method', help='by default adm; a wrong one lists all')
    group.add_argument(
        '--teacher-checkpoint', help='weights of the teacher, for methods with a trained teacher'
    )
    group.add_argument(
        '--dataset-from',
        choices=['student', 'teacher'],
        help="whose data; by default the student's, like schedule and optimiser",
    )


def add_runner_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a tool that runs a Runner, as in MMSegmentation."""
    parser.add_argument('--work-dir', help='the dir to save logs and models')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes it on.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config that ``args`` names, or pair two, and apply :func:`config_parser`'s flags.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the flags do not fit together, or two configs cannot be paired.
    """
    install_safe_loading()
    trust_checkpoints(args.trust_checkpoint)
    config = _paired(args) if getattr(args, 'student', None) else _named(args)
    config = resolve_config(config, args.cfg_options)
    if args.no_pretrained:
        drop_downloads(config)
    return config


def _named(args: argparse.Namespace) -> Config:
    if given := [f'--{flag.replace("_", "-")}' for flag in PAIR_FLAGS if getattr(args, flag, None)]:
        raise ValueError(f'{", ".join(given)} belong to a pair: name its --student too')
    if args.config is None:
        raise ValueError('name a config, or two networks: --student CONFIG --teacher CONFIG')
    return read_config(args.config)


def _paired(args: argparse.Namespace) -> Config:
    if args.config is not None:
        raise ValueError(
            f'{args.config} is a config: --student and --teacher stand in place of one'
        )
    if args.teacher is None:
        raise ValueError('--student needs a --teacher')
    return pair(
        args.student,
        args.teacher,
        args.method or 'adm',
        args.teacher_checkpoint,
        args.dataset_from or 'student',
        pretrained=not args.no_pretrained,
    )


def prepare_runner(config: Config, args: argparse.Namespace) -> None:
    """Fit ``config`` to the flags of :func:`add_runner_flags` and to this machine, in place.

    Raises:
        ValueError: If the config asks for what would silently train nothing.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    config.launcher = args.launcher
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(config.filename).stem)
    if config.get('activation_checkpointing'):
        raise ValueError(
            "MMEngine's activation_checkpointing gives a backbone that is read by a method no "
            'gradient: remove it from the config'
        )
    replace_sync_bn(config)
    if args.launcher != 'none':
        _prepare_distributed(config, args.launcher)


def replace_sync_bn(config: Config) -> None:
    """Without CUDA, replace SyncBN, which cannot train there in several processes, by BN."""
    if torch.cuda.is_available():
        return

    def replace(node: object) -> int:
        count = 0
        if isinstance(node, dict):
            if node.get('type') in ('SyncBN', 'MMSyncBN'):
                node['type'] = 'BN'
                count += 1
            node = list(node.values())
        if isinstance(node, (list, tuple)):
            count += sum(replace(child) for child in node)
        return count

    if replace(config.model):
        print_log(
            'No CUDA device: SyncBN is replaced by BN. With several processes each one then '
            'normalises by its own images',
            logger='current',
            level=30,
        )


def _prepare_distributed(config: Config, launcher: str) -> None:
    # Unlike MMEngine's default this one broadcasts buffers: plain BN has other statistics on
    # each rank, and rank 0 saves its own.
    wrapper: dict = dict(type='MMDistributedDataParallel')
    if config.get('find_unused_parameters'):
        # MMEngine reads it only where no wrapper is set.
        wrapper['find_unused_parameters'] = True
    if not torch.cuda.is_available():
        if launcher != 'pytorch':
            raise ValueError(f'--launcher {launcher} needs CUDA; without it use pytorch')
        wrapper['device_ids'] = None
        config.env_cfg.dist_cfg = dict(backend='gloo')
        if not is_distributed():
            # MMEngine's launcher would call torch.cuda.set_device.
            torch.distributed.init_process_group('gloo')
    config.model_wrapper_cfg = wrapper | (config.get('model_wrapper_cfg') or {})


def leave_process_group() -> None:
    """End together: a process that exits while others still write takes the launch down."""
    if is_distributed():
        barrier()
        torch.distributed.destroy_process_group()


def enable_amp(config: Config) -> None:
    """``--amp``: float16 with loss scaling on a GPU, bfloat16 on a CPU.

    Raises:
        ValueError: If the optimiser wrapper is neither a plain one nor one per group.
    """
    if config.optim_wrapper.get('constructor') == 'mmseg_adm.GroupOptimWrapperConstructor':
        config.optim_wrapper.dtype = 'float16' if torch.cuda.is_available() else 'bfloat16'
        return
    kind = config.optim_wrapper.get('type', 'OptimWrapper')
    if kind in ('AmpOptimWrapper', 'mmseg_adm.CPUAmpOptimWrapper'):
        print_log('AMP training is already enabled in your config.', 'current', level=30)
        return
    if kind != 'OptimWrapper':
        raise ValueError(f'--amp needs optim_wrapper.type OptimWrapper, got {kind}')
    if torch.cuda.is_available():
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'
    else:
        config.optim_wrapper.type = 'mmseg_adm.CPUAmpOptimWrapper'
