"""What others print on the screen that a user can do nothing about."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings

# Regular expressions for the beginning of a warning.
WARNINGS = (
    'Fail to import ``MultiScaleDeformableAttention``',
    'Default ``avg_non_ignore`` is False',
    'The draw is False, it means that the hook for visualization',
    'The shape of value will convert from',
    'pkg_resources is deprecated',
    r'`torch\.jit\.',
    r'`isinstance\(treespec, LeafSpec\)` is deprecated',
)
# The beginnings of what MMEngine logs about itself.
LOGGED = (
    'Failed to search registry with scope',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)
# What onedl's mmseg prints when its data sets are imported.
PRINTED = 'Could not import OneDL'


def silence_third_parties() -> None:
    """Drop these messages, and no others, in this process and in those that it forks."""
    for text in WARNINGS:
        warnings.filterwarnings('ignore', message=text)
    _filter_log()
    printed = io.StringIO()
    # What cannot be imported is for the command to say.
    with contextlib.suppress(Exception), contextlib.redirect_stdout(printed):
        import mmseg.datasets  # noqa: F401
    for line in printed.getvalue().splitlines():
        if line != PRINTED:
            print(line)


def _filter_log() -> None:
    from mmengine.logging import MMLogger

    def wanted(logger: MMLogger, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(LOGGED)

    # Every run makes a logger of its own, without a parent that could filter for them all.
    MMLogger.filter = wanted


def log_only(level: str) -> None:
    """Have MMEngine log what is at least so grave; it reports how each weight is initialized."""
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmseg_adm', log_level=level)
