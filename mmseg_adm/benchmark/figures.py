"""The results as pictures."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mmseg_adm.writing import whole_file

from .plan import Pair, Row
from .settings import STUDENT, TEACHER
from .summary import Summary

PREFIX = 'IoU.'
# What AgreementProbeHook logs, by the beginning of its name.
QUANTITIES = {
    'similarity_': 'cosine of the centered logits',
    'response_': 'IoU of high response and foreground',
    'right_student_': 'share where the student is right, by similarity',
    'right_teacher_': 'share where the teacher is right, by similarity',
}
STYLES: tuple[Any, ...] = ('-', '--', ':', '-.')


def draw_figures(summary: Summary, pair: Pair, folder: Path, stem: str) -> list[Path]:
    """Write gains, curves, gains by class, and what was probed; returns the paths.

    Rows without lines that count are left out, and a picture that would be empty is not written.
    """
    rows = [row for row in pair.rows if summary.lines(row)]
    kinds: dict[str, Callable] = {
        'gain': _draw_gains,
        'curves': _draw_curves,
        'classes': _draw_classes,
        'agreement': _draw_agreement,
    }
    paths = []
    for kind, draw in kinds.items():
        figure = Figure(figsize=(9, max(4.5, 1.2 + 0.32 * len(rows))), layout='constrained')
        if draw(figure, summary, rows):
            paths.append(folder / f'{stem}_{pair.name}_{kind}.png')
            with whole_file(paths[-1]) as partial:
                figure.savefig(partial, dpi=110, format='png')
    return paths


def _draw_gains(figure: Figure, summary: Summary, rows: list[Row]) -> bool:
    height = 0.38
    gains = {member: {row.name: gain for row in rows if (gain := summary.gain(row, member))}
             for member in (STUDENT, TEACHER)}  # fmt: skip
    names = [row.name for row in rows if any(row.name in known for known in gains.values())]
    if not names:
        return False
    axes = figure.subplots()
    for offset, member, color in ((-height / 2, STUDENT, 'C0'), (height / 2, TEACHER, 'C1')):
        known = gains[member]
        axes.barh(
            [names.index(name) + offset for name in known],
            [gain.mean for gain in known.values()],
            height,
            xerr=[gain.half_width if gain.count > 1 else 0 for gain in known.values()],
            color=color,
            capsize=3,
            label=member,
        )
    axes.axvline(0, color='0.3', linewidth=0.8)
    # From above, in the order of the table.
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel('mIoU gained over the network alone')
    axes.set_title('Mean over seeds, paired; bars: 95 % interval')
    axes.legend(frameon=False)
    return True


def _draw_curves(figure: Figure, summary: Summary, rows: list[Row]) -> bool:
    curves = {row: curve for row in rows if (curve := _curve(summary, row))}
    if not curves:
        return False
    axes = figure.subplots()
    for index, (row, curve) in enumerate(curves.items()):
        style = '--' if row.network else '-'
        label = f'{row.name} alone' if row.name == row.network else row.name
        axes.plot(*zip(*curve, strict=True), style, marker='o', color=_color(index), label=label)
    axes.set_xlabel('iteration')
    axes.set_ylabel("mIoU, mean over seeds (of methods: the student's)")
    _legend_beside(axes)
    return True


def _curve(summary: Summary, row: Row) -> list[tuple[int, float]]:
    """Iterations and mean scores."""
    metric = summary.metric(row, row.network or STUDENT)
    by_step: dict[int, list[float]] = {}
    for line in summary.lines(row).values():
        for each in line['evaluations']:
            if metric in each:
                by_step.setdefault(each['step'], []).append(each[metric])
    return [(step, statistics.fmean(by_step[step])) for step in sorted(by_step)]


def _draw_classes(figure: Figure, summary: Summary, rows: list[Row]) -> bool:
    alone = [row for row in rows if row.name == STUDENT]
    lines = [line for row in alone for line in summary.lines(row).values()]
    evaluations = [line['evaluations'][-1] for line in lines if line['evaluations']]
    classes = dict.fromkeys(key for each in evaluations for key in each if key.startswith(PREFIX))
    compared = {row: gains for row in rows if (gains := _class_gains(summary, row, classes))}
    if not compared:
        return False
    axes = figure.subplots()
    width = 0.8 / len(compared)
    for index, (row, gains) in enumerate(compared.items()):
        shift = (index - (len(compared) - 1) / 2) * width
        places = [place + shift for place, key in enumerate(classes) if key in gains]
        axes.bar(places, list(gains.values()), width, color=_color(index), label=row.name)
    axes.axhline(0, color='0.3', linewidth=0.8)
    labels = [key.removeprefix(PREFIX) for key in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=35, ha='right')
    axes.set_ylabel("student's IoU gained over alone")
    _legend_beside(axes)
    return True


def _class_gains(summary: Summary, row: Row, classes: Iterable[str]) -> dict[str, float]:
    """Mean gains of the student, of the classes that the row was scored by."""
    gains = {key: summary.gain(row, STUDENT, what=key) for key in classes}
    return {key: gain.mean for key, gain in gains.items() if gain}


def _draw_agreement(figure: Figure, summary: Summary, rows: list[Row]) -> bool:
    """Where the networks agree, and what they know there."""
    probes = {row.name: probed for row in rows if (probed := summary.probes(row))}
    known = dict.fromkeys(metric for probed in probes.values() for metric in probed)
    quantities = {prefix: [metric for metric in known if metric.startswith(prefix)]
                  for prefix in QUANTITIES}  # fmt: skip
    shown = {prefix: metrics for prefix, metrics in quantities.items() if metrics}
    if not shown:
        return False
    columns = min(2, len(shown))
    every = figure.subplots(-(-len(shown) // columns), columns, squeeze=False).flatten()
    for axes in every[len(shown) :]:
        axes.set_axis_off()
    for axes, (prefix, metrics) in zip(every, shown.items(), strict=False):
        for index, probed in enumerate(probes.values()):
            for metric, style in zip(metrics, itertools.cycle(STYLES)):
                if metric in probed:
                    steps, means = zip(*probed[metric], strict=True)
                    axes.plot(steps, means, style, color=_color(index))
        axes.set_xlabel('iteration')
        axes.set_ylabel(QUANTITIES[prefix])
        styles = [Line2D([], [], color='0.3', linestyle=style, label=metric.removeprefix(prefix))
                  for metric, style in zip(metrics, itertools.cycle(STYLES))]  # fmt: skip
        axes.legend(handles=styles, frameon=False, fontsize=8)
    colors = [Line2D([], [], color=_color(index), label=name)
              for index, name in enumerate(probes)]  # fmt: skip
    figure.legend(handles=colors, loc='outside right center', frameon=False, fontsize=8)
    return True


def _color(index: int) -> Any:
    return colormaps['tab10' if index < 10 else 'tab20b'](index % 20)


def _legend_beside(axes: Axes) -> None:
    """Where it hides nothing, however many rows there are."""
    figure: Any = axes.figure
    figure.legend(loc='outside right center', frameon=False, fontsize=8)
