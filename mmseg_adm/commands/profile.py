"""Measure time and memory of a training step.

The floor (all members, no method), each method, all methods.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .flags import add_config_flags, at_least_one, check_config, config_of
from .quiet import log_only

if TYPE_CHECKING:
    from rich.table import Table

    from mmseg_adm.benchmark.profiling import StepCost

FLOOR = 'the floor is the step of all members without methods'


def add_flags(parser: argparse.ArgumentParser) -> None:
    """A config, and how much is measured."""
    add_config_flags(parser)
    parser.add_argument('--rounds', type=at_least_one, default=10, help='rounds that are timed')
    parser.add_argument(
        '--all',
        action='store_true',
        help='profile every shipped config with the student, data and schedule of this one',
    )


def check(args: argparse.Namespace) -> None:
    """Refuse what the flags alone tell."""
    check_config(args)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    from mmseg_adm.benchmark.profiling import profile_step
    from mmseg_adm.config import check_registered
    from mmseg_adm.tables import show

    from .launch import fit_to_machine

    # It reports how each weight was initialized.
    log_only('WARNING')
    if args.all:
        show(table_of_all(args))
        return
    config = config_of(args)
    check_registered(config, ('train',))
    fit_to_machine(config)
    show(table_of_one(profile_step(config, args.rounds)))


def table_of_one(costs: list[StepCost]) -> Table:
    """The rows of one config."""
    table = table_of(
        f'One training step; {FLOOR}',
        ('', 's / step', 'time', 'MiB', 'memory', 'share of time', 'extra parameters'),
    )
    floor, full = costs[0].seconds, costs[-1].seconds
    for cost in costs:
        share = (cost.time_ratio - 1) * floor / full
        table.add_row(
            cost.name,
            f'{cost.seconds:.3f}',
            f'{cost.time_ratio:.3f}',
            f'{cost.memory / 2**20:.0f}',
            f'{cost.memory_ratio:.3f}',
            '' if cost is costs[0] else f'{100 * share:.1f} %',
            f'{cost.parameters}',
        )
    return table


def table_of_all(args: argparse.Namespace) -> Table:
    """One row a config: all its methods together."""
    from mmseg_adm.benchmark.profiling import (
        comparable_configs,
        profile_step,
        use_untrained_teachers,
    )

    from .launch import fit_to_machine

    table = table_of(
        f'One training step of each method; {FLOOR}',
        ('config', 'methods', 'members', 'floor s', 's / step', 'time', 'MiB', 'memory',
         'extra parameters'),
    )  # fmt: skip
    for path in comparable_configs(args.config):
        args.config = str(path)
        config = config_of(args)
        fit_to_machine(config)
        with TemporaryDirectory() as folder:
            use_untrained_teachers(config, Path(folder))
            floor, *_, full = profile_step(config, args.rounds)
        members = [
            f'{name} (frozen)' if member.get('frozen') else name
            for name, member in config.model.members.items()
            if member
        ]
        table.add_row(
            path.stem.split('_')[0],
            ' + '.join(config.model.methods),
            ', '.join(members),
            f'{floor.seconds:.3f}',
            f'{full.seconds:.3f}',
            f'{full.time_ratio:.3f}',
            f'{full.memory / 2**20:.0f}',
            f'{full.memory_ratio:.3f}',
            f'{full.parameters}',
        )
    return table


def table_of(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table; figures to the right."""
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        words = column in ('', 'config', 'methods', 'members')
        table.add_column(column, justify='left' if words else 'right')
    return table
