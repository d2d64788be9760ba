"""What a run writes into its checkpoints to know its frozen members again."""

from __future__ import annotations

import hashlib
from pathlib import Path

# Where a run's checkpoint keeps what it depends on, in its meta.
RECORD = 'mmseg_adm'


def sha256_of(path: Path) -> str:
    """Hash of a file, by which a run knows a frozen member again."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_record(member: str) -> str:
    """The key of a frozen member's hash in a run's record."""
    return f'weights of {member} (sha256)'
