"""Tables on a terminal, in a pipe and in a log."""

from __future__ import annotations

import io
import shutil
from typing import Any

from rich.console import Console, RenderableType

# Columns of a terminal below which a table is not squeezed.
MIN_WIDTH = 100
# Where nobody sets one: more than any table has, so that no path is broken.
UNLIMITED = 10_000


def show(*parts: RenderableType) -> None:
    """Print to the terminal in its width, or as plain text to whatever stands in its place."""
    console = _console()
    if not console.is_terminal:
        print(as_text(*parts))
        return
    console.width = max(shutil.get_terminal_size().columns, MIN_WIDTH)
    console.print(*parts)


def as_text(*parts: RenderableType) -> str:
    """The same as plain text: a line is as long as what it holds, and nothing is padded."""
    file = io.StringIO()
    _console(file=file, width=UNLIMITED).print(*parts)
    return '\n'.join(line.rstrip() for line in file.getvalue().splitlines())


def _console(**options: Any) -> Console:
    # Names and messages are no markup; in a notebook rich would show what is meant for a file.
    return Console(markup=False, emoji=False, highlight=False, force_jupyter=False, **options)
