"""The flags that several commands take, and the config that they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config

CFG_OPTIONS_HELP = (
    'override settings of the config: key-value pairs in xxx=yyy format, lists as key="[a,b]" '
    'or key=a,b, without white space'
)
PAIR_FLAGS = ('teacher', 'method', 'teacher_checkpoint', 'dataset_from')


def add_config_flags(parser: argparse.ArgumentParser, pairs: bool = False) -> None:
    """What every command with a config takes: it, overrides, and how to load weights.

    Args:
        parser: The command's.
        pairs: Whether two networks may stand in place of the config.
    """
    parser.add_argument(
        'config',
        nargs='?' if pairs else None,
        help='config file path, or a name: mmseg::... or mmseg_adm::...',
    )
    if pairs:
        _add_pair_flags(parser)
    add_cfg_options(parser, CFG_OPTIONS_HELP)
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


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """``--cfg-options``, kept as written: MMEngine's reader of them is heavy to import."""
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', default=[], type=_setting, metavar='KEY=VALUE',
        help=text,
    )  # fmt: skip


def at_least_one(text: str) -> int:
    """A flag's number of things."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got '{text}'")
    return int(text)


def _setting(text: str) -> str:
    if '=' not in text:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got '{text}'")
    return text


def _add_pair_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('two networks in place of a config')
    group.add_argument('--student', help='config of the network that is deployed, or its name')
    group.add_argument('--teacher', help='config of the other one, or its name')
    group.add_argument('--method', help='such as adm or cwd; a wrong one lists all')
    group.add_argument(
        '--teacher-checkpoint', help='weights of the teacher, for methods with a trained teacher'
    )
    group.add_argument(
        '--dataset-from',
        choices=['student', 'teacher'],
        help="whose data; by default the student's, like schedule and optimizer",
    )


def add_runner_flags(parser: argparse.ArgumentParser, work_dir: str) -> None:
    """The flags of a command that runs a Runner, as in MMSegmentation.

    Args:
        parser: The command's.
        work_dir: What it writes by default, and where.
    """
    parser.add_argument('--work-dir', help=work_dir)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes it on.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def config_of(args: argparse.Namespace) -> Config:
    """Read the config that ``args`` names, or pair two, and apply :func:`add_config_flags`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the flags do not fit together, or two configs cannot be paired.
    """
    from mmengine.config import DictAction

    from .launch import load_config

    source = _paired(args) if getattr(args, 'student', None) else _named(args)
    reader = argparse.ArgumentParser()
    reader.add_argument('--cfg-options', nargs='+', action=DictAction)
    options = reader.parse_args(['--cfg-options', *args.cfg_options] if args.cfg_options else [])
    return load_config(source, options.cfg_options, not args.no_pretrained, args.trust_checkpoint)


def _named(args: argparse.Namespace) -> str:
    if given := [f'--{flag.replace("_", "-")}' for flag in PAIR_FLAGS if getattr(args, flag, None)]:
        raise ValueError(f'{", ".join(given)} belong to a pair: name its --student too')
    if args.config is None:
        raise ValueError('name a config, or two networks: --student CONFIG --teacher CONFIG')
    return args.config


def _paired(args: argparse.Namespace) -> Config:
    if args.config is not None:
        raise ValueError(
            f'{args.config} is a config: --student and --teacher stand in place of one'
        )
    if args.teacher is None:
        raise ValueError('--student needs a --teacher')
    from mmseg_adm.config import listed_recipes, pair

    if args.method is None:
        raise ValueError(f'name the --method by which they are paired:\n{listed_recipes()}')

    return pair(
        args.student,
        args.teacher,
        args.method,
        args.teacher_checkpoint,
        args.dataset_from or 'student',
        pretrained=not args.no_pretrained,
    )
