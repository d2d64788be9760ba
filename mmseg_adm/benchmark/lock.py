"""One sitting at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Have a folder for oneself, and for the processes that inherit the lock.

    A training that outlives its sitting keeps the lock until it ends: nobody else goes on from
    the checkpoints that it is writing.

    Yields:
        The lock's file descriptor, for ``subprocess.Popen(pass_fds=...)``.

    Raises:
        BlockingIOError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / 'lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f'{folder} is in use: by another benchmark, or by a training that a killed one has '
                'left behind. Stop it, or take another work dir'
            ) from None
        yield file.fileno()
