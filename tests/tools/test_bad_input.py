"""Whatever a user gets wrong is one message, exit status 2, and nothing left behind."""

import hashlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import BAD_INPUTS, IMAGES, BadInput, M, write_material
from command_line import Done, command
from factory import ROOT, quick_in

from mmseg_adm.commands.main import COMMANDS


@pytest.fixture(scope='module')
def material(tmp_path_factory, city):
    folder = tmp_path_factory.mktemp('material')
    write_material(folder, city)
    return folder


@pytest.fixture(scope='module')
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp('downloads')


def contents(folder: Path) -> dict[str, object]:
    """All that is in a folder: hashes of files, where links lead, and folders."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else 'folder'
        for path in folder.rglob('*')
    }  # fmt: skip


def write_files(case: BadInput, folder: Path, material: Path) -> None:
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path, material)
        elif isinstance(content, str):
            path.write_text(content.replace(M, f'{material}/'))
        else:
            path.write_bytes(content.replace(M.encode(), f'{material}/'.encode()))


def check(case: BadInput, done: Done, material: Path) -> None:
    assert done.returncode == 2, done.stderr[-3000:]
    lines = done.stderr.splitlines()
    assert lines[0].startswith('mmseg-adm: ')
    assert len(lines) == case.lines or (case.lines is None and len(lines) > 1), done.stderr
    for words in case.said:
        assert words.replace(M, f'{material}/') in done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    assert 'object at 0x' not in done.stderr


# Each a training that begins, and the like of the first ones: images and labels that are not right.
LONG = {name for name in BAD_INPUTS if re.match(r'data-([7-9]|1[0-5]):', name)}


@pytest.mark.parametrize('name', quick_in(BAD_INPUTS, *(BAD_INPUTS.keys() - LONG)))
def test_it_is_one_message_and_leaves_nothing(name, material, downloads, tmp_path):
    case = BAD_INPUTS[name]
    write_files(case, tmp_path, material)
    before = contents(tmp_path), contents(material)
    words = shlex.split(case.line.replace(M, f'{material}/'))
    done = command(*words, cwd=tmp_path, TORCH_HOME=str(downloads))
    check(case, done, material)
    assert (contents(tmp_path), contents(material)) == before


def test_an_image_that_was_not_among_the_first_is_named_too(material, tmp_path, monkeypatch):
    monkeypatch.setattr('mmseg_adm.commands.test.IMAGES', 0)
    first = f'city/{IMAGES}/val/dunmere/dunmere_000000'
    case = next(each for each in BAD_INPUTS.values() if each.said[0] == first)
    write_files(case, tmp_path, material)
    done = command(*shlex.split(case.line.replace(M, f'{material}/')), cwd=tmp_path)
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.startswith(f'mmseg-adm: could not load {first}')
    assert done.stderr.count('\n') == 1


# Of each command and each kind, those that the surroundings of a process could change.
ALONE = (
    'tarin', 'benchmark p.py --jobs 0', 'train none.py', f'train {M}smal.py',
    f'train {M}small.py --work-dir mine', 'demo --work-dir mine', 'train c.py', 'train a.py',
    f'export {M}small.py c.pth --out tiny.pth', f'test {M}small.py {M}bad/empty.pth',
    f'test {M}small.py {M}distiller.pth --out maps', f'profile {M}plain.py',
    f'train {M}small.py --cfg-options default_hooks.checkpoint.max_keep_ckpt=1',
    f'preflight {M}small.py --cfg-options model.members=[a]', 'benchmark p.py',
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize('line', ALONE)
def test_so_it_is_in_a_process_of_its_own(line, material, tmp_path):
    case = next(each for each in BAD_INPUTS.values() if each.line == line)
    write_files(case, tmp_path, material)
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, '-m', 'mmseg_adm', *shlex.split(line.replace(M, f'{material}/'))],
        env=os.environ | {'PYTHONPATH': str(ROOT)}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    check(case, Done(done.returncode, done.stdout, done.stderr), material)
    assert contents(tmp_path) == before


def test_fifteen_of_them_run_so():
    assert len(ALONE) == len(set(ALONE)) == 15
    assert set(ALONE) <= {case.line for case in BAD_INPUTS.values()}


def test_they_are_many_and_of_every_command(capsys):
    with capsys.disabled():
        print(f'{len(BAD_INPUTS)} bad inputs', end=' ')
    assert len(BAD_INPUTS) >= 150
    assert {case.line.split()[0] for case in BAD_INPUTS.values()} >= set(COMMANDS)
    inputs = [(case.line, str(case.files), case.said) for case in BAD_INPUTS.values()]
    assert len(set(inputs)) == len(inputs)
