"""Checkpoints and all else that MMEngine writes, whole or not at all."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from mmengine.fileio import LocalBackend, register_backend

from mmseg_adm.writing import write_bytes


class WholeLocalBackend(LocalBackend):
    """MMEngine's files of this machine, each written by :func:`~mmseg_adm.writing.whole_file`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_bytes(filepath, obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Write text."""
        write_bytes(filepath, obj.encode(encoding))


def install_whole_writing() -> None:
    """Make MMEngine write whole files in this process: its checkpoints and its metrics.

    Other places than this machine's file system keep their own way of writing.
    """
    register_backend('local', WholeLocalBackend, force=True, prefixes='')


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write a checkpoint whole or not at all."""
    buffer = io.BytesIO()
    # Not into the file itself: PyTorch's writer does not say that a disk is full.
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
