"""MMEngine's Runner with a screen that starts quietly."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from mmengine.dist import broadcast_object_list
from mmengine.logging import MMLogger
from mmengine.runner import Runner

# Beginnings of what MMEngine logs by hundreds of lines, or nobody can act on: for the file alone.
FILE_ONLY = (
    'System environment:',
    'Config:\n',
    'Hooks will be executed in the following order:',
    'paramwise_options -- ',
    'Exp name: ',
    'Distributed training is not used, all SyncBatchNorm',
)

# The name of a run's folder, as MMEngine writes it.
STAMP = '%Y%m%d_%H%M%S'


class QuietRunner(Runner):
    """Shows what a training does; its surroundings are in the log file of the work dir.

    Each run has a folder of its own in the work dir, also when two start within a second.

    Arguments are those of :class:`mmengine.runner.Runner`.
    """

    def setup_env(self, env_cfg: dict) -> None:
        """MMEngine's surroundings; then the first second whose folder no other run has."""
        super().setup_env(env_cfg)
        stamp = self.timestamp
        stamps = [claimed(Path(self.work_dir), stamp) if self.rank == 0 else stamp]
        broadcast_object_list(stamps)
        self._timestamp = stamps[0]

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """MMEngine's logger; what is for the file alone does not reach the screen."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(for_the_screen)
        return logger


def for_the_screen(record: logging.LogRecord) -> bool:
    """Whether a record says something about this training."""
    # MMEngine draws a line above the environment.
    return not record.getMessage().lstrip('\n-').startswith(FILE_ONLY)


def claimed(folder: Path, stamp: str) -> str:
    """``stamp``, or the next second's, whose folder in ``folder`` was not there; it is made."""
    while True:
        try:
            (folder / stamp).mkdir(parents=True)
        except FileExistsError:
            seconds = time.mktime(time.strptime(stamp, STAMP)) + 1
            stamp = time.strftime(STAMP, time.localtime(seconds))
        else:
            return stamp
