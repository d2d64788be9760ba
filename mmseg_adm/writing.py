"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file is called until it is whole: by whom it is written, too.
PARTIAL = '{name}.{process}.partial'
WRITER = re.compile(r'\.(\d+)\.partial$')


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Have the block write a temporary file; it takes the name ``path`` once it is on the disk.

    What had the name stays as it is until then, also if the block fails or the process is killed.
    The folder is made if need be.

    Args:
        path: On a file system of this machine.

    Yields:
        Where to write: a path in the same folder, whose suffix says nothing about its format.

    Raises:
        OSError: If it cannot be written; with the path, and what is left intact.
    """
    path = Path(path)
    partial = path.with_name(PARTIAL.format(name=path.name, process=os.getpid()))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        _flush(partial)
        os.replace(partial, path)  # noqa: PTH105
        # Until its folder is on the disk too, a crash of the machine may undo the renaming.
        _flush(path.parent)
    except OSError as error:
        reason = error.strerror or error
        left = 'the file of that name is as it was' if path.exists() else 'nothing of it is left'
        failure = OSError(
            f'{path} could not be written: {reason}. All other files are intact, and {left}'
        )
        failure.errno = error.errno
        raise failure from error
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file by :func:`whole_file`."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | Path, content: str) -> None:
    """Write a file by :func:`whole_file`, in UTF-8."""
    write_bytes(path, content.encode())


def remove_leftovers(folder: str | Path, pattern: str = '*') -> None:
    """Remove what processes that were killed have begun to write.

    Args:
        folder: Where.
        pattern: As of ``Path.glob``; ``'**/*'`` looks into all folders below.
    """
    for partial in Path(folder).glob(f'{pattern}.partial'):
        writer = WRITER.search(partial.name)
        if writer and not _is_alive(int(writer[1])):
            partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    """Whether another process of this machine has this number; this one writes nothing now."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
