"""The report as tables: one screen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmseg_adm import tables

from .report import Memory, Report

COLORS = {'ok': 'green', 'warning': 'yellow', 'failed': 'bold red'}


def print_report(report: Report) -> None:
    """Print to the terminal, or as plain text to whatever stands in its place."""
    tables.show(_tables(report))


def as_text(report: Report) -> str:
    """The same as plain text, for a log."""
    return tables.as_text(_tables(report))


def _tables(report: Report) -> Group:
    parts: list[RenderableType] = []
    if report.members:
        parts += [_members(report), *_preprocessing(report)]
    if report.methods:
        parts.append(_methods(report))
    if report.terms:
        parts.append(_terms(report))
    if report.memory:
        parts.append(_memory(report.memory))
    return Group(*parts, _checks(report))


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
    for each in report.members:
        flops = 'not counted' if each.flops is None else f'{each.flops / 1e9:.3g}'
        table.add_row(each.name, each.network, each.role, f'{each.parameters / 1e6:.3f} M', flops)
    return table


def _preprocessing(report: Report) -> list[Text]:
    """One line for all that see their images alike."""
    names: dict[str, list[str]] = {}
    for member in report.members:
        names.setdefault(member.preprocessing, []).append(member.name)
    return [Text(f' {", ".join(each)}: {steps}') for steps, each in names.items()]


def _methods(report: Report) -> Table:
    table = _table('Methods', ('method', 'reads', 'alignment', 'settings'))
    for each in report.methods:
        own = f'\n{each.parameters} parameters' if each.parameters else ''
        alignment = each.alignment or ('none needed',)
        columns = ('\n'.join(lines) for lines in (each.readings, alignment, each.settings))
        table.add_row(f'{each.name} ({each.kind}){own}', *columns)
    return table


def _terms(report: Report) -> Table:
    title = 'Losses on the first images, every method at full strength'
    table = _table(title, ('loss', 'value', 'updates', 'zero gradient'), ('value',))
    own = {method.name: f"{method.name}'s own modules" for method in report.methods}
    for term in report.terms:
        updates, silent = (
            ', '.join(own.get(name, name) for name in names)
            for names in (term.updates, term.silent)
        )
        table.add_row(term.path, f'{term.value:.4g}', updates or 'nobody', silent)
    return table


def _memory(memory: Memory) -> Text:
    parts = {
        'weights': memory.weights,
        'optimizer': memory.optimizer,
        'exchange of gradients': memory.exchange,
        'gradients, activations and temporaries': memory.step,
    }
    sizes = ' + '.join(f'{name} {size / 2**20:.0f}' for name, size in parts.items() if size)
    return Text(f' Memory of a step, {memory.total / 2**20:.0f} MiB: {sizes}.\n {memory.basis}.')


def _checks(report: Report) -> Table:
    table = _table('Checks', ('', 'what', 'found'))
    table.show_header = False
    for check in report.checks:
        table.add_row(Text(check.status, style=COLORS[check.status]), check.name, check.text)
    return table
