"""One benchmark at a time in a folder."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Of a training that was stopped, data workers live on for up to five seconds.
PATIENCE = 10


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Have a folder for oneself, and for the processes that inherit the lock.

    A training that outlives its killed benchmark keeps the lock until it ends (one on several
    GPUs until its launcher does): nobody else goes on from the checkpoints that it is writing.

    Yields:
        The lock's file descriptor, for ``subprocess.Popen(pass_fds=...)``.

    Raises:
        BlockingIOError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE
    # Not filelock's: it keeps its descriptor to itself, and a release there unlocks the heirs' too.
    with (folder / 'lock').open('a') as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BlockingIOError(
                        f'{folder} is in use: by another benchmark, or by a training that a '
                        'killed one has left behind. Stop it first'
                    ) from None
                time.sleep(0.1)
        yield file.fileno()
