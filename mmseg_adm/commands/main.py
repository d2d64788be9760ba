"""From a command line to a command, and from what goes wrong to one line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from mmseg_adm.stack import check_installed

COMMANDS = ('train', 'test', 'preflight', 'export', 'benchmark', 'profile', 'demo', 'info')
# What a user can put right; anything else is a bug, and keeps its traceback.
MISTAKES = (ValueError, TypeError, OSError)
DEBUG = 'MMSEG_ADM_DEBUG'
# Of torchrun, Slurm and Open MPI.
RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
# Seconds that another rank leaves to the first one to say the same.
PATIENCE = 5


class _Parser(argparse.ArgumentParser):
    """One that raises: a wrong flag is a mistake like any other."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """Refuse the command line.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f'{message} ({self.prog} --help lists what there is)')


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read a command line; ``check`` and ``run`` of what it returns are the command.

    Raises:
        ValueError: If there is no such command or flag.
    """
    parser = _Parser(
        prog='mmseg-adm',
        description='Knowledge distillation for MMSegmentation',
        formatter_class=lambda prog: argparse.HelpFormatter(prog, indent_increment=1),
    )
    commands = parser.add_subparsers(title='commands', metavar='COMMAND', required=True)
    for name in COMMANDS:
        module = import_module(f'.{name}', __package__)
        description = str(module.__doc__)
        summary = description.partition('.')[0]
        command = commands.add_parser(name, help=summary, description=description)
        module.add_flags(command)
        command.add_argument(
            '--debug', action='store_true', help=f'show where a mistake was found; as {DEBUG}=1'
        )
        command.set_defaults(
            name=name, check=module.check, run=module.run, argv=list(argv), parser=command
        )
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.parser.error(f'unrecognized arguments: {" ".join(unknown)}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: without one, list them.

    Args:
        argv: The command and its flags; by default those of the process.

    Returns:
        The exit status: 0; 1 if the command says so; 2 after a mistake, which is told in one
        message on stderr; 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parse(argv or ['--help'])
        if args.name != 'info':  # It says itself what does not fit.
            _check_stack()
        args.check(args)
        from .quiet import silence_third_parties

        silence_third_parties()
        return args.run(args) or 0
    except MISTAKES as error:
        if '--debug' in argv or os.environ.get(DEBUG) == '1':
            raise
        _say(str(error))
        return 2
    except KeyboardInterrupt as interrupt:
        _say(f'interrupted{interrupt}')
        return 130


def _check_stack() -> None:
    try:
        check_installed()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _say(message: str) -> None:
    """Print a message on stderr, of several processes only once."""
    rank = next((int(os.environ[name]) for name in RANKS if name in os.environ), 0)
    if rank:
        # What only this rank ran into must be said. Where the first one failed as well, the
        # launcher ends this one while it waits.
        time.sleep(PATIENCE)
        message = f'rank {rank}: {message}'
    print(f'mmseg-adm: {message}', file=sys.stderr, flush=True)
