"""The report as tables: one screen."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .report import Member, Method, Report

MIN_WIDTH = 100
LOG_WIDTH = 120
COLOURS = {'ok': 'green', 'warning': 'yellow', 'failed': 'bold red'}


def print_report(report: Report) -> None:
    """Print to the terminal, or as plain text to whatever stands in its place."""
    width = max(shutil.get_terminal_size().columns, MIN_WIDTH)
    _console(width=width).print(_tables(report))


def as_text(report: Report) -> str:
    """The same as plain text, for a log."""
    file = io.StringIO()
    _console(file=file, width=LOG_WIDTH).print(_tables(report))
    return '\n'.join(line.rstrip() for line in file.getvalue().splitlines())


def _console(**options: Any) -> Console:
    # Names and messages are no markup.
    return Console(markup=False, emoji=False, highlight=False, **options)


def _tables(report: Report) -> Group:
    parts: list[RenderableType] = []
    if report.members:
        parts.append(_members(report))
        parts += [Text(f' {line}') for line in _preprocessing(report.members)]
    if report.methods:
        parts.append(_methods(report.methods))
    if report.terms:
        parts.append(_terms(report))
    if report.memory:
        parts.append(Text(f' {_memory(report)}'))
    parts.append(_checks(report))
    return Group(*parts)


def _table(title: str, columns: Iterable[str], figures: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify='left', title_style='bold', box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(
            column,
            justify='right' if column in figures else 'left',
            overflow='fold',
            no_wrap=column in ('reads', 'settings'),
        )
    return table


def _members(report: Report) -> Table:
    size = f' at {report.crop[0]}x{report.crop[1]}' if report.crop else ''
    figures = ('parameters', f'GFLOPs{size}')
    table = _table('Members', ('name', 'network', 'role', *figures), figures)
    for member in report.members:
        flops = 'not counted' if member.flops is None else f'{member.flops / 1e9:.3g}'
        table.add_row(
            member.name, member.network, member.role, f'{member.parameters / 1e6:.3f} M', flops
        )
    return table


def _preprocessing(members: Sequence[Member]) -> list[str]:
    """One line for all that see their images alike."""
    names: dict[str, list[str]] = {}
    for member in members:
        names.setdefault(member.preprocessing, []).append(member.name)
    return [f'{", ".join(each)}: {steps}' for steps, each in names.items()]


def _methods(methods: Sequence[Method]) -> Table:
    table = _table('Methods', ('method', 'reads', 'alignment', 'settings'))
    for method in methods:
        own = f'\n{method.parameters} parameters' if method.parameters else ''
        table.add_row(
            f'{method.name} ({method.kind}){own}',
            '\n'.join(
                f'{each.member}.{each.point} {"x".join(map(str, each.shape))}'
                for each in method.readings
            ),
            '\n'.join(method.alignment) or 'none needed',
            '\n'.join(method.settings),
        )
    return table


def _terms(report: Report) -> Table:
    table = _table(
        'Losses on the first images, every method at full strength',
        ('loss', 'value', 'updates', 'zero gradient'),
        ('value',),
    )
    own = {method.name: f"{method.name}'s own modules" for method in report.methods}
    for term in report.terms:
        table.add_row(
            f'{term.owner}.{term.name}',
            f'{term.value:.4g}',
            ', '.join(own.get(name, name) for name in term.updates) or 'nobody',
            ', '.join(own.get(name, name) for name in term.silent),
        )
    return table


def _memory(report: Report) -> str:
    memory = report.memory
    assert memory is not None
    parts = ' + '.join(
        f'{name} {value / 2**20:.0f}'
        for name, value in (
            ('weights', memory.weights),
            ('gradients', memory.gradients),
            ('optimizer', memory.optimizer),
            ('activations', memory.activations),
        )
    )
    return (
        f'Memory of a step, about {memory.total / 2**20:.0f} MiB: {parts}.\n '
        f'Activations: {memory.basis}. Temporaries come on top.'
    )


def _checks(report: Report) -> Table:
    table = _table('Checks', ('', 'what', 'found'))
    table.show_header = False
    for check in report.checks:
        table.add_row(Text(check.status, style=COLOURS[check.status]), check.name, check.text)
    return table
