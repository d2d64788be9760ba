"""The results as pictures."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmseg_adm.writing import whole_file

from .settings import STUDENT, TEACHER
from .summary import Spread, Summary

PREFIX = 'IoU.'
STYLES: tuple[Any, ...] = ('-', '--', ':', '-.')


def draw_figures(summary: Summary, pair: str, folder: Path, stem: str) -> list[Path]:
    """Write gains, curves, gains by class, and what was probed; returns the paths.

    Rows that did not run are left out; without a method there is nothing to draw.
    """
    rows = [name for name in summary.plan.names(pair) if summary.seeds(pair, name)]
    methods = [name for name in rows if name not in (STUDENT, TEACHER)]
    if not methods:
        return []
    paths = []
    kinds: list[tuple[str, Callable, list[str]]] = [
        ('gain', _draw_gains, methods),
        ('curves', _draw_curves, rows),
        ('classes', _draw_classes, methods),
    ]
    if probed := [name for name in methods if summary.probes(pair, name)]:
        kinds.append(('foreground', _draw_foreground, probed))
    for kind, draw, drawn in kinds:
        figure = Figure(figsize=(9, max(4.5, 1.2 + 0.32 * len(drawn))), layout='constrained')
        draw(figure.subplots(), summary, pair, drawn)
        paths.append(folder / f'{stem}_{pair}_{kind}.png')
        with whole_file(paths[-1]) as partial:
            figure.savefig(partial, dpi=110, format='png')
    return paths


def _draw_gains(axes: Axes, summary: Summary, pair: str, methods: list[str]) -> None:
    height = 0.38
    for offset, member, colour in ((-height / 2, STUDENT, 'C0'), (height / 2, TEACHER, 'C1')):
        gains = {name: summary.gain(pair, name, member) for name in methods}
        known = {name: gain for name, gain in gains.items() if gain is not None}
        axes.barh(
            [methods.index(name) + offset for name in known],
            [gain.mean for gain in known.values()],
            height,
            xerr=[gain.error if gain.count > 1 else 0 for gain in known.values()],
            color=colour,
            capsize=3,
            label=member,
        )
    axes.axvline(0, color='0.3', linewidth=0.8)
    # From above, in the order of the table.
    axes.set_yticks(range(len(methods)), methods)
    axes.invert_yaxis()
    axes.set_xlabel('mIoU gained over the network alone')
    axes.set_title('Mean over seeds, paired; bars: standard error')
    axes.legend(frameon=False)


def _draw_curves(axes: Axes, summary: Summary, pair: str, rows: list[str]) -> None:
    for index, name in enumerate(rows):
        member = TEACHER if name == TEACHER else STUDENT
        metric = summary.metric(pair, name, member)
        lines = summary.seeds(pair, name).values()
        by_step: dict[int, list[float]] = {}
        for line in lines:
            for row in line['evaluations']:
                if metric in row:
                    by_step.setdefault(row['step'], []).append(row[metric])
        spreads = [Spread.of(by_step[step]) for step in sorted(by_step)]
        means = [spread.mean for spread in spreads if spread is not None]
        style = '--' if name in (STUDENT, TEACHER) else '-'
        label = f'{name} alone' if name in (STUDENT, TEACHER) else name
        axes.plot(sorted(by_step), means, style, marker='o', color=_color(index), label=label)
    axes.set_xlabel('iteration')
    axes.set_ylabel("mIoU, mean over seeds (of methods: the student's)")
    _legend_beside(axes)


def _draw_classes(axes: Axes, summary: Summary, pair: str, methods: list[str]) -> None:
    alone = summary.seeds(pair, STUDENT)
    classes = [key for line in alone.values() for key in line['evaluations'][-1]
               if key.startswith(PREFIX)]  # fmt: skip
    classes = list(dict.fromkeys(classes))
    width = 0.8 / len(methods)
    for index, name in enumerate(methods):
        gains = []
        for key in classes:
            own = summary.values(pair, name, summary.metric(pair, name, STUDENT, key))
            other = summary.values(pair, STUDENT, key)
            spread = Spread.of([own[seed] - other[seed] for seed in own if seed in other])
            gains.append(spread.mean if spread else 0)
        places = [place + (index - (len(methods) - 1) / 2) * width for place in range(len(classes))]
        axes.bar(places, gains, width, color=_color(index), label=name)
    axes.axhline(0, color='0.3', linewidth=0.8)
    labels = [key.removeprefix(PREFIX) for key in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=35, ha='right')
    axes.set_ylabel("student's IoU gained over alone")
    _legend_beside(axes)


def _draw_foreground(axes: Axes, summary: Summary, pair: str, methods: list[str]) -> None:
    """Similarity in fore- and background, and the overlap of responses with the foreground."""
    figure: Any = axes.figure
    axes.remove()
    probes = {name: summary.probes(pair, name) for name in methods}
    known = dict.fromkeys(metric for probed in probes.values() for metric in probed)
    for axis, prefix, quantity in zip(
        figure.subplots(1, 2),
        ('similarity_', 'response_'),
        ('cosine of the centred logits', 'IoU of high response and foreground'),
        strict=True,
    ):
        metrics = [metric for metric in known if metric.startswith(prefix)]
        for index, name in enumerate(methods):
            for metric, style in zip(metrics, itertools.cycle(STYLES)):
                if metric in probes[name]:
                    steps, means = zip(*probes[name][metric], strict=True)
                    axis.plot(steps, means, style, color=_color(index))
        axis.set_xlabel('iteration')
        axis.set_ylabel(quantity)
        styles = [Line2D([], [], color='0.3', linestyle=style, label=metric.removeprefix(prefix))
                  for metric, style in zip(metrics, itertools.cycle(STYLES))]  # fmt: skip
        if styles:
            axis.legend(handles=styles, frameon=False, fontsize=8)
    colours = [Line2D([], [], color=_color(index), label=name)
               for index, name in enumerate(methods)]  # fmt: skip
    figure.legend(handles=colours, loc='outside right center', frameon=False, fontsize=8)


def _color(index: int) -> Any:
    return colormaps['tab10' if index < 10 else 'tab20b'](index % 20)


def _legend_beside(axes: Axes) -> None:
    """Where it hides nothing, however many rows there are."""
    figure: Any = axes.figure
    figure.legend(loc='outside right center', frameon=False, fontsize=8)
