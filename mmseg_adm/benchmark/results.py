"""Raw results: one JSON line a cell, added, never changed."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from mmseg_adm.checkpoint import read_checkpoint, weights_of
from mmseg_adm.engine.known_predictions import fingerprint
from mmseg_adm.writing import write_text

from .provenance import fingerprint_of, logged_rows
from .settings import STUDENT

# What AgreementProbeHook logs.
PROBE = 'probe/'
# In a distiller's weights.
MEMBER = f'members.{STUDENT}.'
DONE, FAILED, CHECKED = 'done', 'failed', 'checked'


class Results:
    """The lines of one file.

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

    def last(self, **wanted: object) -> dict | None:
        """The last line that has these values."""
        for line in reversed(self.lines):
            if all(line.get(key) == value for key, value in wanted.items()):
                return line
        return None

    def has_failed(self, settings: str) -> bool:
        """Whether the last training with these settings did not come to its end."""
        trained = [line['status'] for line in self.lines
                   if line['settings'] == settings and line['status'] != CHECKED]  # fmt: skip
        return trained[-1:] == [FAILED]

    def trained(self, settings: str, device: str) -> dict | None:
        """The last training with these settings, on this device, that came to its end."""
        return self.last(settings=settings, device=device, status=DONE)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other benchmark adds to a file of this folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def collect(work_dir: Path) -> dict:
    """Metrics, costs and fingerprint of a training that came to its end, from its own logs.

    Raises:
        FileNotFoundError: If it logged or saved nothing.
        ValueError: If it logged no training iteration.
    """
    rows = logged_rows(work_dir)
    if not rows:
        raise FileNotFoundError(f'no log in {work_dir}')
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
    if not any(key.endswith('mIoU') for each in evaluations.values() for key in each):
        raise ValueError(f'no mIoU is logged in {work_dir}: val_evaluator must give one')
    probes = {row['step']: row for row in rows if any(key.startswith(PROBE) for key in row)}
    checkpoint = last_checkpoint(work_dir)
    if checkpoint is None:
        raise FileNotFoundError(f'no checkpoint in {work_dir}')
    weights = weights_of(read_checkpoint(checkpoint))
    seconds = statistics.median(row['time'] for row in training)
    return {
        'fingerprint': fingerprint_of(training),
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
        'student': student_hash(weights),
    }


def student_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of the student's names and values: the same for a checkpoint and its export."""
    own = {key.removeprefix(MEMBER): value for key, value in weights.items()
           if key.startswith(MEMBER)}  # fmt: skip
    return fingerprint(dict(sorted((own or weights).items()))).hex()


def last_checkpoint(work_dir: Path) -> Path | None:
    """The latest ``iter_<n>.pth`` of a training, if there is one."""
    paths = work_dir.glob('iter_*.pth')
    return max(paths, key=lambda path: int(path.stem.split('_')[-1]), default=None)
