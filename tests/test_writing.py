import errno
import os
import resource
import subprocess
import sys

import pytest

from mmseg_adm.writing import remove_leftovers, whole_file, write_bytes, write_text

pytestmark = pytest.mark.core


def test_a_file_is_there_once_it_is_whole(tmp_path):
    path = tmp_path / 'new' / 'file.txt'
    with whole_file(path) as partial:
        partial.write_text('first')
        assert not path.exists()
        assert partial.parent == path.parent
    assert path.read_text() == 'first'
    write_text(path, 'zweite Fassung ü')
    assert path.read_text(encoding='utf-8') == 'zweite Fassung ü'
    assert list(path.parent.iterdir()) == [path]


def test_what_was_there_stays_until_then(tmp_path):
    path = tmp_path / 'file'
    write_bytes(path, b'old')
    with pytest.raises(KeyboardInterrupt), whole_file(path) as partial:
        partial.write_bytes(b'ne')
        raise KeyboardInterrupt
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [path]


def test_content_and_name_are_on_the_disk_before_it_counts(tmp_path, monkeypatch):
    """File, then its new name, then the folder: in another order a crash may leave neither."""
    order = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda file: (order.append(os.fstat(file)), fsync(file)))
    monkeypatch.setattr(os, 'replace', lambda *names: (order.append('named'), replace(*names)))
    write_bytes(tmp_path / 'file', b'content')
    file, named, folder = order
    assert (file.st_size, named, folder.st_ino) == (7, 'named', tmp_path.stat().st_ino)


@pytest.fixture
def full_disk():
    """No file can grow beyond a few bytes: a write stops in its middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize('before', [None, b'old'])
def test_a_full_disk_is_told_with_the_path_and_what_is_left(before, tmp_path, full_disk):
    path = tmp_path / 'file'
    left = 'nothing of it is left'
    if before:
        write_bytes(path, before)
        left = 'the file of that name is as it was'
    with pytest.raises(
        OSError, match=f'^{path} could not be written: File too large.*{left}$'
    ) as e:
        write_bytes(path, bytes(100))
    assert e.value.errno == errno.EFBIG
    assert [each.read_bytes() for each in tmp_path.iterdir()] == ([before] if before else [])


def test_leftovers_of_the_dead_are_removed(tmp_path):
    dead = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'],
                          capture_output=True, text=True, check=True).stdout.strip()  # fmt: skip
    (tmp_path / 'below').mkdir()
    left = [f'a.pth.{dead}.partial', f'below/b.py.{dead}.partial', f'c.{os.getpid()}.partial']
    # Init lives; and what a user has called so is no leftover.
    kept = ['d.1.partial', 'mine.partial', 'a.pth']
    for name in (*left, *kept):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert (tmp_path / left[1]).exists()
    remove_leftovers(tmp_path, '**/*')
    assert {path.name for path in tmp_path.rglob('*') if path.is_file()} == set(kept)
