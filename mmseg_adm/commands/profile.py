"""Time and memory of a training step: the floor, each method, all methods."""

from pathlib import Path
from tempfile import TemporaryDirectory

from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmseg_adm.benchmark.profiling import (
    StepCost,
    comparable_configs,
    profile_step,
    use_untrained_teachers,
)

from .flags import config_parser, load_config, replace_sync_bn

FLOOR = 'the floor is the step of all members without methods'


def main() -> None:
    """Run the command line."""
    parser = config_parser('Profile the training step of a distiller')
    parser.add_argument('--rounds', type=int, default=10, help='rounds that are timed')
    parser.add_argument(
        '--all',
        action='store_true',
        help='profile every shipped config with the student, data and schedule of this one',
    )
    args = parser.parse_args()
    # MMEngine reports how each weight was initialised.
    MMLogger.get_instance('profile_step', log_level='WARNING')
    if args.all:
        profile_all(args)
    else:
        config = load_config(args)
        replace_sync_bn(config)
        print_one(profile_step(config, args.rounds))


def print_one(costs: list[StepCost]) -> None:
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
    Console(width=110).print(table)


def profile_all(args) -> None:
    """One row a config: all its methods together."""
    table = table_of(
        f'One training step of each method; {FLOOR}',
        ('config', 'methods', 'members', 'floor s', 's / step', 'time', 'MiB', 'memory',
         'extra parameters'),
    )  # fmt: skip
    for path in comparable_configs(args.config):
        args.config = str(path)
        config = load_config(args)
        replace_sync_bn(config)
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
    Console(width=140).print(table)


def table_of(title: str, columns: tuple[str, ...]) -> Table:
    """An empty table; figures to the right."""
    table = Table(title=title)
    for column in columns:
        words = column in ('', 'config', 'methods', 'members')
        table.add_column(column, justify='left' if words else 'right')
    return table
