"""Look at a training before it starts.

The exit status is 1 if it must not start.
"""

from __future__ import annotations

import argparse

from .flags import add_config_flags, check_config, config_of
from .quiet import log_only


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A config, or a pair."""
    add_config_flags(parser, pairs=True)


def check(args: argparse.Namespace) -> None:
    """Refuse what the flags alone tell."""
    check_config(args)


def run(args: argparse.Namespace) -> int:
    """Run the command."""
    from mmseg_adm.preflight import inspect_config, print_report

    from .launch import fit_to_machine

    log_only('ERROR')
    config = config_of(args)
    fit_to_machine(config)
    report = inspect_config(config)
    print_report(report)
    return 1 if report.failed else 0
