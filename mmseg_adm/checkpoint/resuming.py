"""Which of the checkpoints in a folder are whole, and which of them a training goes on from."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from .reading import read_checkpoint


class Newest(NamedTuple):
    """What a training goes on from.

    Args:
        path: The newest whole checkpoint; ``None`` if there is none.
        skipped: Newer ones that are not whole, and why.
    """

    path: Path | None
    skipped: dict[Path, str]


def step_of(name: str, template: str) -> int | None:
    """The iteration or epoch in the name of a checkpoint; ``None`` if it is not named so.

    Args:
        name: Of the file.
        template: As ``CheckpointHook`` takes it: ``'iter_{}.pth'``.
    """
    before, _, after = template.partition('{}')
    found = re.fullmatch(rf'{re.escape(before)}(\d+){re.escape(after)}', name)
    return int(found[1]) if found else None


def checkpoints_in(folder: str | Path, template: str) -> list[Path]:
    """The checkpoints of a training, whole or not, newest first.

    Args:
        folder: Its work dir.
        template: Of their names, as of :func:`step_of`.
    """
    steps = {path: step_of(path.name, template) for path in Path(folder).glob('*')}
    found = {path: step for path, step in steps.items() if step is not None}
    return sorted(found, key=found.__getitem__, reverse=True)


def newest_whole(folder: str | Path, template: str) -> Newest:
    """The newest checkpoint in a folder that is whole, whatever ``last_checkpoint`` says.

    Args:
        folder: A work dir.
        template: Of the names, as of :func:`step_of`.
    """
    skipped: dict[Path, str] = {}
    for path in checkpoints_in(folder, template):
        damage = damage_of(path)
        if damage is None:
            return Newest(path, skipped)
        skipped[path] = damage
    return Newest(None, skipped)


def damage_of(path: str | Path) -> str | None:
    """What is wrong with a checkpoint, by the checksums in it; ``None`` if it is whole."""
    path = Path(path)
    if not path.is_file():
        return 'it is no file'
    if path.stat().st_size == 0:
        return 'it is empty'
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
    except zipfile.BadZipFile:
        return 'it is cut short'
    except Exception as error:  # what stands for a length or an offset may be anything
        return f'it is damaged ({error})'
    if part is not None:
        return f'it is damaged: the checksum of {part} is wrong'
    try:
        # What lies around the parts has no checksum; PyTorch is stricter about it than Python.
        read_checkpoint(path, 'meta')
    except ValueError as error:
        return str(error)
    return None
