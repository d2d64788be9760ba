"""What others print that a user can do nothing about."""

from __future__ import annotations

import warnings

# By how a warning begins, as ``warnings`` matches them.
WARNINGS: tuple[str, ...] = ()


def silence_third_parties() -> None:
    """Ignore those warnings in this process, and in those that it starts."""
    for text in WARNINGS:
        warnings.filterwarnings('ignore', message=text)


def log_only(level: str) -> None:
    """Have MMEngine log what is at least so grave; it reports how each weight is initialized."""
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmseg_adm', log_level=level)
