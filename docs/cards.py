"""What plans measured of a method, into its card: ``python docs/cards.py benchmarks/demo.py``.

A row of two seeds or more that pairs networks by a method as it is shipped becomes a model of
``configs/<method>/metafile.yml``. The student's time for an image is measured where this runs, on
one thread. ``python docs/method_table.py`` makes tables of the cards.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import torch
from method_table import ROOT, folder_of
from mmengine.fileio import dump, load
from mmengine.registry import DATASETS, MODELS, init_default_scope

from mmseg_adm.benchmark import Pair, Plan, Results, Row, Spread, Summary, read_plan
from mmseg_adm.benchmark.provenance import device_name
from mmseg_adm.commands.quiet import log_only
from mmseg_adm.models.flops import count_flops, seconds_per_image


def main() -> None:
    """Replace what the cards say of the plans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('plans', nargs='+', type=Path)
    args = parser.parse_args()
    log_only('ERROR')
    init_default_scope('mmseg')
    torch.set_num_threads(1)
    for path in args.plans:
        entries = entries_of(read_plan(path))
        for metafile in sorted((ROOT / 'configs').glob('*/metafile.yml')):
            card = load(metafile)
            others = [model for model in card['Models'] if model['Config'] != _name(path)]
            own = entries.get(card['Collections'][0]['Name'], [])
            if card['Models'] != [*others, *own]:
                card['Models'] = [*others, *own]
                dump(card, metafile, sort_keys=False, width=200)
                print(f'{_name(metafile)}: {", ".join(model["Name"] for model in own) or "none"}')


def entries_of(plan: Plan) -> dict[str, list[dict]]:
    """By collection, what a plan's lines say."""
    lines = plan.path.parent / 'results' / f'{plan.name}.jsonl'
    summary = Summary(plan, Results(lines))
    entries: dict[str, list[dict]] = {}
    for pair in plan.pairs:
        for row in pair.rows:
            method = method_of(row)
            gain = summary.gain(row, 'student') if method else None
            if gain is None or gain.count < 2:
                continue
            (card,) = load(ROOT / 'configs' / folder_of(method) / 'metafile.yml')['Collections']
            name = f'{method}_{plan.name}' + (f'_{pair.name}' if len(plan.pairs) > 1 else '')
            entry = {
                'Name': name,
                'In Collection': card['Name'],
                'Config': _name(plan.path),
                'Metadata': {**networks(pair, row), **cost_of(pair.row('student').source[0])},
                'Results': {
                    'Task': 'Semantic Segmentation',
                    'Dataset': _stem(pair.row('student')).rpartition('_')[2],
                    'Metrics': metrics(summary, pair, row, gain),
                },
                'Training Log': _name(lines),
                'Student SHA256': {
                    seed: line['student'] for seed, line in summary.lines(row).items()
                },
            }
            entries.setdefault(card['Name'], []).append(entry)
    return entries


def method_of(row: Row) -> str:
    """The recipe of a row that pairs networks by one as it is shipped; of others nothing."""
    *networks, last = row.source
    changed = any(key.startswith('model.methods.') for key in row.options)
    return last.removeprefix('--method=') if networks and not changed else ''


def networks(pair: Pair, row: Row) -> dict:
    """What was trained, and how long."""
    return {
        'Student': _stem(pair.row('student')),
        'Teacher': _stem(pair.row('teacher')),
        'Iterations': row.iterations,
    }


@cache
def cost_of(config: str) -> dict:
    """What a network costs at the size of the first image that it is validated on."""
    from mmseg_adm.config import read_config

    read = read_config(config)
    network: Any = MODELS.build(read.model)
    dataset: Any = DATASETS.build(read.val_dataloader.dataset)
    height, width = dataset[0]['inputs'].shape[-2:]
    flops = count_flops(network, (height, width))
    return {
        'Parameters (M)': round(sum(each.numel() for each in network.parameters()) / 1e6, 2),
        'Image Size': f'{height}x{width}',
        'GFLOPs': round(flops / 1e9, 2) if flops else None,
        'Inference Time (ms/im)': round(1e3 * seconds_per_image(network, (height, width)), 1),
        'Hardware': f'{device_name()}, one thread',
    }


def metrics(summary: Summary, pair: Pair, row: Row, gain: Spread) -> dict:
    """In mIoU, means over seeds; the gain over the student alone with its 95 % interval."""
    spreads = {
        'mIoU': summary.member(row, 'student'),
        'Student Alone': summary.member(pair.row('student'), 'student'),
        'Teacher Alone': summary.member(pair.row('teacher'), 'teacher'),
        'Gain': gain,
    }
    return {
        **{name: round(spread.mean, 2) for name, spread in spreads.items() if spread},
        'Interval': [round(bound, 2) for bound in gain.interval],
        'Seeds': gain.count,
    }


def _stem(row: Row) -> str:
    return Path(row.source[0].rpartition('::')[2]).stem


def _name(path: Path) -> str:
    return str(path.resolve().relative_to(ROOT))


if __name__ == '__main__':
    main()
