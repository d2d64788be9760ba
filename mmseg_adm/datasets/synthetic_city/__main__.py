"""Writes a synthetic city: ``python -m mmseg_adm.datasets.synthetic_city ROOT``."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from .writer import write_synthetic_city


def main() -> None:
    """Reads the command line and writes the data set."""
    default = {
        name: parameter.default
        for name, parameter in inspect.signature(write_synthetic_city).parameters.items()
    }
    parser = argparse.ArgumentParser(
        prog='python -m mmseg_adm.datasets.synthetic_city',
        description='Draws street scenes as a data set in the Cityscapes layout.',
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument('root', type=Path, help='folder of the data set')
    parser.add_argument('--num-train', type=int, default=default['num_train'])
    parser.add_argument('--num-val', type=int, default=default['num_val'])
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), default=default['size'])
    parser.add_argument('--seed', type=int, default=default['seed'])
    given = parser.parse_args()
    height, width = given.size
    try:
        write_synthetic_city(
            given.root, given.num_train, given.num_val, (height, width), given.seed
        )
    except ValueError as error:
        parser.error(str(error))
    print(
        f'{given.num_train} training and {given.num_val} validation images of {height}x{width} '
        f'in {given.root}'
    )


if __name__ == '__main__':
    main()
