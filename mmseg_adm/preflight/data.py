"""Whether the data can be read, and agree with each other and with the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dataset import BaseDataset
from torch import nn

from mmseg_adm.datasets.checks import check_classes, check_images, check_labels, plain_datasets

from .report import Report
from .teachers import first_difference

IMAGES = 8


def check_data(
    model: nn.Module | None, datasets: Mapping[str, Any], label_maps: int, report: Report
) -> None:
    """Classes, palettes, images and labels; a line each.

    Args:
        model: Whose class counts are compared, if there is one.
        datasets: By split; wrapped ones too.
        label_maps: How many label maps of each set are searched for values out of range.
        report: Takes the lines.
    """
    plain = {split: plain_datasets(whole) for split, whole in datasets.items()}
    everything = [dataset for each in plain.values() for dataset in each]
    if not everything:
        report.add('data', 'warning', 'not looked at: no data set of the BaseSegDataset kind')
        return
    _check_names(plain, report)
    if model is not None:
        _check(report, 'class counts', _counts, model, everything)
    for split, each in plain.items():
        _check(report, f'{split} data', _files, each, label_maps)


def _check(report: Report, name: str, function: Any, *arguments: Any) -> None:
    if text := report.attempt(name, 'failed', function, *arguments):
        report.add(name, 'ok', text)


def _counts(model: nn.Module, datasets: Sequence[BaseDataset]) -> str:
    for dataset in datasets:
        check_classes(model, dataset)
    return f'{len(datasets[0].metainfo["classes"])} in the data and in every network'


def _files(datasets: Sequence[BaseDataset], label_maps: int) -> str:
    for dataset in datasets:
        check_images(dataset, IMAGES)
        check_labels(dataset, label_maps)
    total = sum(map(len, datasets))
    maps = sum(min(label_maps, len(dataset)) for dataset in datasets)
    searched = f'; the values of {maps} label maps are in range' if maps else ''
    images = sum(min(IMAGES, len(dataset)) for dataset in datasets)
    return f'{images} of {total} images decode, with their labels{searched}'


def _check_names(plain: Mapping[str, Sequence[BaseDataset]], report: Report) -> None:
    """Compare class names and colours of all sets with those of the first one."""
    sets = [(split, dataset.metainfo) for split, each in plain.items() for dataset in each]
    (first, expected), *others = sets
    for split, found in others:
        if problem := first_difference(expected['classes'], found['classes'], first, split):
            report.add('class names', 'failed', f'{problem}: give both the same metainfo')
            return
        if _palette(found) != _palette(expected):
            text = f'{first} and {split} data differ in colours, so their pictures do'
            report.add('palette', 'warning', text)
    classes, colours = expected['classes'], _palette(expected)
    if len(colours) != len(classes):
        text = f'{len(colours)} colours for {len(classes)} classes: set metainfo.palette'
        report.add('palette', 'warning', text)
    splits = ' and '.join(dict.fromkeys(split for split, _ in sets))
    report.add('class names', 'ok', f'{splits}: {len(classes)}, from {classes[0]} to {classes[-1]}')


def _palette(metainfo: Mapping) -> list[list[int]]:
    return [[int(value) for value in colour] for colour in metainfo.get('palette') or []]
