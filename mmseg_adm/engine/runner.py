"""MMEngine's Runner with a screen that starts quietly."""

from __future__ import annotations

import logging

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


class QuietRunner(Runner):
    """Shows what a training does; its surroundings are in the log file of the work dir.

    Arguments are those of :class:`mmengine.runner.Runner`.
    """

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
