"""Running commands in this process, as a user runs them in one of their own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from mmengine.registry import DefaultScope
from mmengine.utils import ManagerMixin

from mmseg_adm.checkpoint import trust_checkpoints
from mmseg_adm.commands.main import main


@dataclass(frozen=True)
class Done:
    """What a command left on the screen, and its exit status."""

    returncode: int
    stdout: str
    stderr: str


def forget_managers() -> None:
    """MMEngine keeps the scope, the loggers and the visualizers of a process's first runner."""

    def clear(kind: type) -> None:
        getattr(kind, '_instance_dict', {}).clear()
        for child in kind.__subclasses__():
            clear(child)

    clear(ManagerMixin)
    DefaultScope.get_instance('test', scope_name='mmseg')


def command(*argv: object, cwd: Path, **environment: str) -> Done:
    """Run ``mmseg-adm`` in a folder; an exception that it lets through is a traceback and 1."""
    stdout, stderr = io.StringIO(), io.StringIO()
    on_termination = signal.getsignal(signal.SIGTERM)
    forget_managers()
    with (
        pytest.MonkeyPatch.context() as folder,
        # What a command sets in its environment goes with it.
        patch.dict(os.environ, environment),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        folder.chdir(cwd)
        try:
            status = main([str(word) for word in argv])
        except SystemExit as error:  # of --help
            status = int(error.code or 0)
        except Exception:
            traceback.print_exc()
            status = 1
    forget_managers()
    # What a command changes in its process ends with it.
    trust_checkpoints(False)
    signal.signal(signal.SIGTERM, on_termination)
    return Done(status, stdout.getvalue(), stderr.getvalue())
