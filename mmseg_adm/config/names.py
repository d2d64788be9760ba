"""Configs by name: those of the installed MMSegmentation, and this project's own."""

from __future__ import annotations

import difflib
from importlib.util import find_spec
from pathlib import Path

from mmengine.config import Config

from .imports import first_cause

PACKAGES = ('mmseg', 'mmseg_adm')


def configs_of(package: str) -> Path:
    """The folder of a package's configs: as installed with it, or as in its repository.

    Raises:
        FileNotFoundError: If it came without configs.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f'{package} is not installed')
    root = Path(spec.origin).parent
    folders = (root / '.mim' / 'configs', root.parent / 'configs')
    for folder in folders:
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f'{package} is installed without its configs, sought in {folders[0]} and {folders[1]}'
    )


def find_config(name: str | Path) -> Path:
    """The file behind a path, or behind a name such as ``mmseg::pspnet/pspnet_r18-d8_....py``.

    MMEngine resolves such names for a distribution that is called mmsegmentation, and there
    with a module that Python no longer has; here every distribution will do.

    Raises:
        FileNotFoundError: If there is no such file; for a name with the nearest ones.
    """
    package, separator, path = str(name).partition('::')
    if not separator:
        if not Path(name).is_file():
            raise FileNotFoundError(f'config not found: {name}')
        return Path(name)
    if package not in PACKAGES:
        raise FileNotFoundError(f"'{name}': configs have names in {', '.join(PACKAGES)} only")
    folder = configs_of(package)
    path = path if path.endswith('.py') else f'{path}.py'
    if not (folder / path).is_file():
        known = [str(each.relative_to(folder)) for each in folder.glob('[!_]*/*.py')]
        near = difflib.get_close_matches(path, known, n=3, cutoff=0.3)
        raise FileNotFoundError(
            f"{package} has no config '{path}'. Nearest: {', '.join(near) or 'none'}"
        )
    return folder / path


def install_config_names() -> None:
    """Let ``_base_`` of every config that MMEngine reads in this process name those configs."""
    own = Config._get_cfg_path
    if getattr(own, 'knows_names', False):
        return

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.partition('::')[0] in PACKAGES and '::' in cfg_path:
            # Without a scope: that would rewrite the types of what it inherits.
            return str(find_config(cfg_path)), None
        return own(cfg_path, filename)

    get_cfg_path.knows_names = True  # type: ignore[attr-defined]
    Config._get_cfg_path = staticmethod(get_cfg_path)


def read_config(name: str | Path) -> Config:
    """Read the config that a path or a name leads to.

    Raises:
        FileNotFoundError: If there is no such file, or none that it inherits from.
        ValueError: If it imports what is not installed, or cannot be read.
    """
    install_config_names()
    path = find_config(name)
    try:
        return Config.fromfile(path)
    except ImportError as error:
        raise ValueError(
            f'{name} cannot be read, because of what it imports: {first_cause(error)}. Install '
            'that, or choose a network that does without'
        ) from error
    except (SyntaxError, NameError, KeyError, OSError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f'{name} cannot be read: {type(error).__name__}: {error}') from error
