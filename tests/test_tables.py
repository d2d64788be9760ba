"""Tables, as they come out of a pipe and on a terminal."""

import pytest
from rich.table import Table

from mmseg_adm import tables

PATH = '/data/' + '/'.join(f'a_long_folder_{index}' for index in range(20)) + '/image [0].png'


@pytest.fixture
def table():
    table = Table('what', 'found', title='Checks')
    table.add_row('train data', f'{PATH} does not decode')
    table.add_row('val data', 'ok')
    return table


def test_in_a_pipe_a_path_is_whole_and_nothing_is_padded(table, capsys):
    tables.show(table)
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if PATH in line]) == 1
    assert not [line for line in lines if line != line.rstrip()]
    assert lines == tables.as_text(table).splitlines()


@pytest.mark.parametrize(('columns', 'width'), [(40, tables.MIN_WIDTH), (150, 150)])
def test_a_terminal_has_a_width(columns, width, table, capsys, monkeypatch):
    monkeypatch.setenv('FORCE_COLOR', '1')  # as rich knows a terminal where there is none
    monkeypatch.setenv('COLUMNS', str(columns))
    tables.show(table)
    printed = capsys.readouterr().out
    assert '\x1b[' in printed
    assert PATH not in printed
    assert len(printed.splitlines()[-1]) == width


def test_in_a_notebook_what_is_for_a_file_is_not_shown(table, monkeypatch):
    monkeypatch.setattr('rich.console._is_jupyter', lambda: True)
    assert PATH in tables.as_text(table)
