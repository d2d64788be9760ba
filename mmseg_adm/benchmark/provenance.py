"""Where a result comes from: commit, code, device, and the first losses of its training."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import torch

from mmseg_adm import __version__
from mmseg_adm.stack import installed_versions

PACKAGE = Path(__file__).resolve().parents[1]
# Of the checkout, if this is one.
ROOT = PACKAGE.parent
# Names the commit of a copy that travels without its history, as ``git describe --always --dirty``
# does.
COMMIT = 'MMSEG_ADM_COMMIT'
# Sums on a GPU are taken in another order each time; on a CPU, in one thread, they are not.
GPU_TOLERANCE = 1e-3
CPU, GPU = 'cpu: ', 'gpu: '


def code_hash(imports: Iterable[str] = ()) -> str:
    """Of the package's source, of modules of one's own, and of the versions of what runs them.

    Args:
        imports: Modules that a config imports; those that are not imported here don't count.
    """
    own = (getattr(sys.modules.get(name), '__file__', None) for name in imports)
    modules = [Path(path) for path in own if path]
    digest = hashlib.sha256(json.dumps(versions(), sort_keys=True).encode())
    for path in [*sorted(PACKAGE.rglob('*.py')), *modules]:
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Of this package and of what it computes with."""
    return {'mmseg_adm': __version__, **installed_versions(), 'torch': torch.__version__}


def device_name() -> str:
    """The GPU on which trainings run, else the processor."""
    if torch.cuda.device_count():
        return GPU + torch.cuda.get_device_name(0)
    information = Path('/proc/cpuinfo')
    lines = information.read_text().splitlines() if information.is_file() else []
    named = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return CPU + (named[0] if named else platform.processor() or platform.machine())


def commit_of(folder: Path) -> str:
    """The commit that is checked out there, or was copied; empty if nothing is known."""
    return (_git(folder, 'rev-parse', '--short=12', 'HEAD') or os.environ.get(COMMIT, '')).strip()


def package_commit() -> str:
    """The package's commit, or the version of one that is installed without its history."""
    # An environment may lie inside the repository of somebody else.
    found = commit_of(ROOT) if (ROOT / '.git').exists() else os.environ.get(COMMIT)
    return found or f'mmseg_adm {__version__}'


def changed_files(folder: Path, written: Iterable[Path]) -> list[str]:
    """What differs from the commits: Python files of the package, of its configs, of a plan.

    Of a copy without its history it is not known which, but whether any.

    Args:
        folder: The plan's.
        written: Folders that the benchmark itself writes into.
    """
    changed = _changes(folder, '*.py')
    if (ROOT / '.git').exists():
        changed |= _changes(ROOT, 'mmseg_adm/*.py', 'configs/*.py')
    if not changed and os.environ.get(COMMIT, '').endswith('-dirty'):
        return [os.environ[COMMIT]]
    written = [path.resolve() for path in written]
    return sorted(str(path) for path in changed
                  if not any(path.is_relative_to(each) for each in written))  # fmt: skip


def _changes(folder: Path, *patterns: str) -> set[Path]:
    top = _git(folder, 'rev-parse', '--show-toplevel')
    if not top:
        return set()
    listed = _git(folder, 'status', '--porcelain', '-z', '--untracked-files=all', '--no-renames',
                  '--', *patterns)  # fmt: skip
    return {Path(top.strip(), line[3:]) for line in (listed or '').split('\0') if line}


def _git(folder: Path, *args: str) -> str | None:
    try:
        return subprocess.check_output(
            ['git', *args], cwd=folder, stderr=subprocess.DEVNULL, text=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return None


def logged_rows(work_dir: Path) -> list[dict]:
    """What a training has logged, and those that went on from it."""
    logs = sorted(work_dir.glob('*/vis_data/scalars.json'))
    rows = []
    for line in (line for log in logs for line in log.read_text().splitlines()):
        # It is being written; or MMEngine was killed, or the disk full, and it is logged again.
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def fingerprint_of(rows: Iterable[Mapping]) -> dict | None:
    """The first losses that a training logged, and when; ``None`` before that."""
    training = [row for row in rows if 'loss' in row]
    if not training:
        return None
    first = min(training, key=lambda row: row['step'])
    return {key: value for key, value in sorted(first.items()) if 'loss' in key or key == 'step'}


def same_fingerprint(first: Mapping, second: Mapping, device: str) -> bool:
    """Whether two trainings on one device began alike: on a processor to the last digit."""
    tolerance = GPU_TOLERANCE if device.startswith(GPU) else 0
    return first.keys() == second.keys() and all(
        math.isclose(first[key], second[key], rel_tol=tolerance) for key in first
    )
