"""Which distribution of the OpenMMLab stack is installed, and whether it will do.

Two distributions share the import names ``mmengine``, ``mmcv`` and ``mmseg`` and overwrite
each other's files: OpenMMLab's own and the maintained ``onedl-*``. Either works, both or a
mixture do not. Standard library only: ``setup.py`` reads the ranges from this file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from pickle import UnpicklingError

STACKS = {
    'onedl': {
        'onedl-mmengine': '>=0.10.12,<0.11',
        'onedl-mmcv': '>=2.3.6,<2.4',
        'onedl-mmsegmentation': '>=1.4.2,<1.5',
    },
    'openmmlab': {
        'mmengine': '>=0.10.7,<0.11',
        'mmcv': '>=2.1.0,<2.2',
        'mmsegmentation': '>=1.2.2,<1.3',
    },
}
TORCH = '>=2.6'
# The same files under other names: without the compiled operators, and without the rest.
ALIASES = {
    'mmcv-lite': 'mmcv',
    'mmengine-lite': 'mmengine',
    'onedl-mmengine-lite': 'onedl-mmengine',
}

HOW_TO_INSTALL = """\
Install exactly one of them, in an environment without the other; in the clone of mmseg_adm:
    pip install -e ".[onedl]"       the maintained distribution, no compiled operators needed
    pip install -e ".[openmmlab]"   upstream; mmcv with its compiled operators
that is
{ranges}"""


def installed_versions(distributions: Iterable[metadata.Distribution] | None = None) -> dict:
    """Versions of the stack's distributions that are installed, under their own names."""
    known = {name for stack in STACKS.values() for name in stack}
    found: dict[str, str] = {}
    for distribution in metadata.distributions() if distributions is None else distributions:
        # A half-removed distribution has no name.
        name = (distribution.metadata['Name'] or '').lower().replace('_', '-')
        if ALIASES.get(name, name) in known:
            # In the order of sys.path: the first one is imported.
            found.setdefault(name, distribution.version)
    return found


def check_stack(versions: dict[str, str] | None = None) -> str:
    """Name the distribution in use, ``'onedl'`` or ``'openmmlab'``.

    Args:
        versions: Installed versions by distribution name; by default those found.

    Raises:
        RuntimeError: If neither or both are installed, one is incomplete, or a version, that of
            PyTorch included, is out of range. (Not ``ImportError``: MMEngine's registry swallows
            that one and reports a missing module instead.)
    """
    from packaging.specifiers import SpecifierSet

    installed = installed_versions() if versions is None else versions
    versions = {ALIASES.get(name, name): version for name, version in installed.items()}
    present = [stack for stack, wanted in STACKS.items() if wanted.keys() & versions.keys()]
    if not present:
        raise RuntimeError(_explain('mmseg_adm needs MMSegmentation, which is not installed.'))
    if len(present) > 1:
        raise RuntimeError(
            _explain(
                'Two distributions of the OpenMMLab stack are installed and overwrite each '
                f'other ({_listing(installed)}). Uninstall all of them first: pip uninstall -y '
                f'{" ".join(sorted(installed))}.'
            )
        )
    for name, wanted in STACKS[present[0]].items():
        if name not in versions:
            raise RuntimeError(_explain(f'{name}{wanted} is missing beside {_listing(installed)}.'))
        if not SpecifierSet(wanted).contains(versions[name], prereleases=True):
            raise RuntimeError(_explain(f'{name} {versions[name]} is installed, not {wanted}.'))
    if not SpecifierSet(TORCH).contains(torch := metadata.version('torch'), prereleases=True):
        raise RuntimeError(f'mmseg_adm needs torch{TORCH}, and {torch} is installed.')
    return present[0]


@cache
def check_installed() -> None:
    """Look once in a process at what is installed, before MMEngine is imported.

    Raises:
        RuntimeError: As :func:`check_stack`.
    """
    check_stack()
    _import_yapf()


def _import_yapf() -> None:
    """Import what MMEngine formats a config with, whatever lies in its cache.

    yapf renames the file of its grammar into place before it has written the last of it. Where
    several processes start on a new machine one may read half of it, and a process that was
    killed there leaves half of it to all that follow.
    """
    formatter = 'yapf.yapflib.yapf_api'
    try:
        import_module(formatter)
    except (EOFError, UnpicklingError):
        with tempfile.TemporaryDirectory() as folder, _environment('XDG_CACHE_HOME', folder):
            import_module(formatter)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _listing(versions: dict[str, str]) -> str:
    return ', '.join(f'{name} {version}' for name, version in sorted(versions.items()))


def _explain(problem: str) -> str:
    ranges = '\n'.join(
        '    ' + ' '.join(f'"{name}{wanted}"' for name, wanted in stack.items())
        for stack in STACKS.values()
    )
    return f'{problem}\n{HOW_TO_INSTALL.format(ranges=ranges)}'
