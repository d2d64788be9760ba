"""The flags that several commands take, and the config that they name."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmseg_adm.paths import find_checkpoint, find_config

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
        type=path,
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
    # Not isdecimal alone: int() refuses some thousand digits with advice on Python.
    if not (text.isdecimal() and len(text) < 10 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got '{text}'")
    return int(text)


def seconds(text: str) -> float:
    """A flag's time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f"expected seconds >= 0, got '{text}'")
    return value


def path(text: str) -> str:
    """A flag's path; an empty one is a variable of the shell that is not set."""
    if not text.strip() or '\0' in text:
        raise argparse.ArgumentTypeError(f'expected a path, got {text!r}')
    return text


def _setting(text: str) -> str:
    if not text.partition('=')[0].strip() or '=' not in text:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got '{text}'")
    return text


def _add_pair_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('two networks in place of a config')
    group.add_argument(
        '--student', type=path, help='config of the network that is deployed, or its name'
    )
    group.add_argument('--teacher', type=path, help='config of the other one, or its name')
    group.add_argument('--method', help='such as adm or cwd; a wrong one lists all')
    group.add_argument(
        '--teacher-checkpoint',
        type=path,
        help='weights of the teacher, for methods with a trained teacher',
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
    parser.add_argument('--work-dir', type=path, help=work_dir)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch passes it on.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def check_config(args: argparse.Namespace) -> None:
    """Refuse flags that do not fit together, and files that are not there.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If it is neither one config nor a pair.
    """
    if getattr(args, 'student', None):
        if args.config is not None:
            raise ValueError(
                f'{args.config} is a config: --student and --teacher stand in place of one'
            )
        if args.teacher is None:
            raise ValueError('--student needs a --teacher')
        sources = [args.student, args.teacher]
    else:
        if given := [f'--{flag.replace("_", "-")}' for flag in PAIR_FLAGS
                     if getattr(args, flag, None)]:  # fmt: skip
            raise ValueError(f'{", ".join(given)} belong to a pair: name its --student too')
        if args.config is None:
            raise ValueError('name a config, or two networks: --student CONFIG --teacher CONFIG')
        sources = [args.config]
    for source in sources:
        find_config(source)
    if checkpoint := getattr(args, 'teacher_checkpoint', None):
        check_checkpoint(checkpoint)


def check_checkpoint(checkpoint: str) -> None:
    """Refuse a path without a file; an address or a model-zoo name is looked up later.

    Raises:
        FileNotFoundError: With what is there instead.
    """
    if '://' not in checkpoint:
        find_checkpoint(checkpoint)


def config_of(args: argparse.Namespace) -> Config:
    """Read the config that ``args`` names, or pair two, and apply :func:`add_config_flags`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If two configs cannot be paired, or an override cannot be read.
    """
    from .launch import load_config

    source = _paired(args) if getattr(args, 'student', None) else args.config
    options = options_of(args.cfg_options)
    return load_config(source, options, not args.no_pretrained, args.trust_checkpoint)


def options_of(settings: list[str]) -> dict:
    """The overrides by dotted key, their values as MMEngine reads them.

    Raises:
        ValueError: If one cannot be read.
    """
    from mmengine.config import DictAction

    class Reader(DictAction):
        """MMEngine's, but for the white space in a path, which that one takes out."""

        @staticmethod
        def _parse_iterable(val: str) -> object:
            if ',' in val or val.startswith(('(', '[')) or val.strip('\'"') != val:
                return DictAction._parse_iterable(val)
            return DictAction._parse_int_float_bool(val.strip())

    reader = argparse.ArgumentParser()
    reader.add_argument('--cfg-options', nargs='+', action=Reader, default={})
    options: dict = {}
    for setting in settings:
        try:
            options |= reader.parse_args(['--cfg-options', setting]).cfg_options
        except AssertionError as error:
            raise ValueError(f'--cfg-options {setting}: {error}') from None
    return options


def _paired(args: argparse.Namespace) -> Config:
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
