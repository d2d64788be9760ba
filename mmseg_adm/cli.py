"""What the tools share: their flags, and the way from a config file to a config that runs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.dist import barrier, is_distributed
from mmengine.logging import print_log

from .checkpoint import drop_pretrained, install_safe_loading, is_remote

CFG_OPTIONS_HELP = (
    'override settings of the config: key-value pairs in xxx=yyy format, lists as key="[a,b]" '
    'or key=a,b, without white space'
)


def config_parser(description: str) -> argparse.ArgumentParser:
    """A parser with what every tool takes: a config, overrides and ``--no-pretrained``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file path')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help=CFG_OPTIONS_HELP)
    parser.add_argument(
        '--no-pretrained',
        action='store_true',
        help='drop every checkpoint that would have to be downloaded',
    )
    return parser


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
    """Read the config file that ``args`` names and apply the flags of :func:`config_parser`.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'config not found: {args.config}')
    install_safe_loading()
    config = Config.fromfile(args.config)
    if args.cfg_options is not None:
        config.merge_from_dict(args.cfg_options)
    if args.no_pretrained:
        drop_pretrained(config.model, remote_only=True)
        if is_remote(config.get('load_from')):
            config.load_from = None
    return config


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
        config.work_dir = str(Path('work_dirs') / Path(args.config).stem)
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
