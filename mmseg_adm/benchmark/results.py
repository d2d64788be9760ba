"""Raw results: one JSON line a cell, added, never changed."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from mmseg_adm import __version__
from mmseg_adm.checkpoint import read_checkpoint, weights_of
from mmseg_adm.stack import installed_versions
from mmseg_adm.writing import write_text

from .plan import Cell

# Of the checkout, if this is one.
ROOT = Path(__file__).resolve().parents[2]
# What ForegroundProbeHook logs.
PROBE = 'probe/'


class Results:
    """The lines of one file; of each cell the last one with its present settings counts.

    Args:
        path: A ``.jsonl`` file, which may not exist yet.

    Raises:
        ValueError: If a line is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict] = []
        text = path.read_text() if path.is_file() else ''
        for number, line in enumerate(text.splitlines(), 1):
            try:
                self.lines.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f'{path}, line {number} is damaged: {error}. Remove it') from None

    def add(self, line: dict) -> None:
        """Add a line to the file at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _alone_in(self.path.parent):
            # As it is now: another benchmark may have added to it.
            before = self.path.read_text() if self.path.is_file() else ''
            write_text(self.path, before + json.dumps(line) + '\n')
        self.lines.append(line)

    def of(self, cell: Cell) -> dict | None:
        """The cell's line, ``None`` if it did not run with these settings."""
        for line in reversed(self.lines):
            if (line['cell'], line['settings']) == (cell.key, cell.settings):
                return line
        return None

    def finished(self, cells: Iterable[Cell]) -> dict[str, dict]:
        """Lines of the cells that ran to the end, by key."""
        found = {cell.key: self.of(cell) for cell in cells}
        return {key: line for key, line in found.items() if line and line['status'] == 'done'}


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other benchmark adds to a file of this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def provenance(cell: Cell) -> dict:
    """What a line says whether or not the cell came to its end."""
    return {
        'cell': cell.key,
        'settings': cell.settings,
        'config': ' '.join(cell.source).replace(f'{ROOT}/', ''),
        'seed': cell.seed,
        'commit': _code(),
        'versions': {'mmseg_adm': __version__, **installed_versions(), 'torch': torch.__version__},
    }  # fmt: skip


def collect(work_dir: Path) -> dict:
    """Metrics and costs of a training that came to its end, from its own logs.

    Raises:
        FileNotFoundError: If it logged or saved nothing.
        ValueError: If it logged no training iteration.
    """
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    if not logs:
        raise FileNotFoundError(f'no log in {work_dir}')
    rows = [row for log in logs for row in _rows_of(log)]
    training = [row for row in rows if 'loss' in row]
    if not training:
        raise ValueError(
            f'no training iteration is logged in {work_dir}: let default_hooks.logger.interval be '
            'at most train_cfg.max_iters'
        )
    evaluations = {}
    for row in rows:
        if any(key.endswith('mIoU') for key in row):
            kept = {key: value for key, value in row.items() if key not in ('time', 'data_time')}
            evaluations[row['step']] = kept  # a resumed run may evaluate a step again
    probes = {row['step']: row for row in rows if any(key.startswith(PROBE) for key in row)}
    checkpoint = last_checkpoint(work_dir)
    if checkpoint is None:
        raise FileNotFoundError(f'no checkpoint in {work_dir}')
    weights = weights_of(read_checkpoint(checkpoint))
    seconds = statistics.median(row['time'] for row in training)
    return {
        'evaluations': [evaluations[step] for step in sorted(evaluations)],
        **({'probes': [probes[step] for step in sorted(probes)]} if probes else {}),
        'seconds per iteration': round(seconds, 4),
        'share of data waiting': round(
            statistics.median(row['data_time'] for row in training) / seconds, 4
        ),
        'device memory (MiB)': max((row.get('memory', 0) for row in training), default=0),
        'extra parameters': sum(
            value.numel() for key, value in weights.items() if key.startswith('methods.')
        ),
    }


def _rows_of(log: Path) -> Iterator[dict]:
    for line in log.read_text().splitlines():
        # MMEngine was killed, or the disk full, in the middle of one: it is logged again.
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def last_checkpoint(work_dir: Path) -> Path | None:
    """The latest ``iter_<n>.pth`` of a training, if there is one."""
    paths = work_dir.glob('iter_*.pth')
    return max(paths, key=lambda path: int(path.stem.split('_')[-1]), default=None)


def _code() -> str:
    """The commit, or the version of a package that is installed without its history."""

    def git(*args: str) -> str:
        command = ['git', *args]
        return subprocess.check_output(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)

    # An environment may lie inside the repository of somebody else.
    if (ROOT / '.git').exists():
        with suppress(OSError, subprocess.CalledProcessError):  # no git, or another's folder
            changed = git('status', '--porcelain', '--untracked-files=no')
            return git('rev-parse', '--short', 'HEAD').strip() + ('+changes' if changed else '')
    return f'mmseg_adm {__version__}'
