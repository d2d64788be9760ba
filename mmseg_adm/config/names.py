"""Configs by name: those of the installed MMSegmentation, and this project's own."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmseg_adm.mistakes import described
from mmseg_adm.paths import PACKAGES, find_config

from .imports import first_cause
from .type_names import with_type_names


def install_config_names() -> None:
    """Let ``_base_`` of every config that MMEngine reads in this process name those configs.

    And have it say which file cannot be read, where one inherits from another, and which of them
    inherit from each other: it would read those until Python stops it, for seconds.
    """
    own = Config._get_cfg_path
    if getattr(own, 'knows_names', False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if not isinstance(cfg_path, str):
            raise ValueError(f'_base_ must be a path, a name, or a list of them, got {cfg_path!r}')
        if cfg_path.partition('::')[0] in PACKAGES and '::' in cfg_path:
            # Without a scope: that would rewrite the types of what it inherits.
            return str(find_config(cfg_path)), None
        return own(cfg_path, filename)

    get_cfg_path.knows_names = True  # type: ignore[attr-defined]
    Config._get_cfg_path = staticmethod(get_cfg_path)
    Config._file2dict = staticmethod(_naming(Config._file2dict))


def _naming(read: Callable[..., tuple]) -> Callable[..., tuple]:
    """MMEngine's reader of one file and, through itself, of those that it inherits from."""
    # Of each thread: a benchmark reads in several.
    reading: ContextVar[tuple[Path, ...]] = ContextVar('reading', default=())

    def file2dict(filename: str, *args: Any, **kwargs: Any) -> tuple:
        path, inheriting = Path(filename).resolve(), reading.get()
        if path in inheriting:
            circle = [*inheriting[inheriting.index(path) :], path]
            raise ValueError(
                f'its _base_ leads back to itself, {" -> ".join(each.name for each in circle)}: '
                'remove one of them'
            )
        token = reading.set((*inheriting, path))
        try:
            return read(filename, *args, **kwargs)
        except Exception as error:
            if not hasattr(error, 'config_file'):
                error.config_file = path  # type: ignore[attr-defined]
            raise
        finally:
            reading.reset(token)

    return file2dict


def read_config(name: str | Path) -> Config:
    """Read the config that a path or a name leads to.

    Raises:
        FileNotFoundError: If there is no such file, or none that it inherits from.
        ValueError: If it imports what is not installed, or cannot be read.
    """
    install_config_names()
    path = find_config(name)
    try:
        return with_type_names(Config.fromfile(path))
    except ImportError as error:
        raise ValueError(
            f'{name} cannot be read, because of what it imports: {first_cause(error)}. Install '
            'that, or choose a network that does without'
        ) from error
    except Exception as error:  # a config is a program, and may raise anything
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f'{name} cannot be read: {_reason(error, path)}') from error


def _reason(error: Exception, path: Path) -> str:
    """What is wrong, in which file and line."""
    if isinstance(error, SyntaxError):
        # MMEngine raises it anew, without the line, and with the name of a copy of the file.
        cause = error if error.lineno or error.__context__ is None else error.__context__
        line = getattr(cause, 'lineno', None)
        reason = f'SyntaxError in line {line}: {getattr(cause, "msg", cause)}'
    else:
        reason = described(error)
    place = getattr(error, 'config_file', path.resolve())
    return reason if place == path.resolve() else f'it inherits from {place}: {reason}'
