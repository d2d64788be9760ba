"""MMEngine's own loading, made to read weights only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from .fetching import REMOTE_PREFIXES, fetch, url_of
from .reading import read_checkpoint

UNSUPPORTED_PREFIXES = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')


def load_from_local(filename: str, map_location: str | torch.device | None = None) -> dict:
    """MMEngine's loader for files, weights only."""
    return read_checkpoint(filename, map_location)


def load_from_remote(filename: str, map_location: str | torch.device | None = None) -> dict:
    """MMEngine's loader for addresses and model-zoo names: download, then weights only."""
    checkpoint = read_checkpoint(fetch(url_of(filename)), map_location)
    if filename.startswith('mmcls://'):
        return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)
    return checkpoint


def load_from_unsupported(filename: str, map_location: object = None) -> dict:
    """Stand in for MMEngine's loaders that would unpickle whatever they are given."""
    raise ValueError(f'{filename} cannot be read weights-only: download it and give its path')


def install_safe_loading() -> None:
    """Make every checkpoint that MMEngine reads in this process a weights-only one."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(REMOTE_PREFIXES, load_from_remote, force=True)
    CheckpointLoader.register_scheme(UNSUPPORTED_PREFIXES, load_from_unsupported, force=True)


@contextmanager
def safe_loading() -> Iterator[None]:
    """:func:`install_safe_loading` for a while."""
    schemes = CheckpointLoader._schemes
    CheckpointLoader._schemes = schemes.copy()
    install_safe_loading()
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes
