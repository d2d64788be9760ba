"""Time and memory of a training step: the floor, each method, all methods."""

from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmseg_adm.cli import config_parser, load_config, replace_sync_bn
from mmseg_adm.profiling import profile_step


def main() -> None:
    """Run the command line."""
    parser = config_parser('Profile the training step of a distiller')
    parser.add_argument('--rounds', type=int, default=10, help='rounds that are timed')
    args = parser.parse_args()
    # MMEngine reports how each weight was initialised.
    MMLogger.get_instance('profile_step', log_level='WARNING')
    config = load_config(args)
    replace_sync_bn(config)
    costs = profile_step(config, args.rounds)
    table = Table(title='One training step; the floor is the step of all members without methods')
    for column in ('', 's / step', 'time', 'MiB', 'memory', 'share of time', 'extra parameters'):
        table.add_column(column, justify='left' if not column else 'right')
    full = costs[-1].seconds
    for cost in costs:
        share = (cost.time_ratio - 1) * costs[0].seconds / full
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


if __name__ == '__main__':
    main()
