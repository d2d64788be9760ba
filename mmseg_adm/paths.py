"""Files and folders that a user names: found, or refused with what is there instead.

Standard library only: a command line is checked before anything heavy is imported.
"""

from __future__ import annotations

import difflib
import os
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ('mmseg', 'mmseg_adm')
# Configs that a message names.
SHOWN = 3


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
        FileNotFoundError: If there is no such file; with the nearest ones.
    """
    package, separator, path = str(name).partition('::')
    if not separator:
        if Path(name).is_file():
            return Path(name)
        if Path(name).is_dir():
            raise FileNotFoundError(f'{name} is a folder{_configs_in(Path(name))}')
        near = _nearest(Path(name).name, [each.name for each in Path(name).parent.glob('*.py')])
        raise FileNotFoundError(
            f'config not found: {name}' + (f'. Nearest: {near}' if near else '')
        )
    if package not in PACKAGES:
        raise FileNotFoundError(f"'{name}': configs have names in {', '.join(PACKAGES)} only")
    folder = configs_of(package)
    if path and (folder / path).is_dir():
        raise FileNotFoundError(f"'{name}' is a folder{_configs_in(folder / path)}")
    path = path if path.endswith('.py') else f'{path}.py'
    if not (folder / path).is_file():
        known = [str(each.relative_to(folder)) for each in folder.glob('[!_]*/*.py')]
        near = _nearest(path, known)
        raise FileNotFoundError(f"{package} has no config '{path}'. Nearest: {near or 'none'}")
    return folder / path


def _nearest(name: str, known: list[str]) -> str:
    return ', '.join(difflib.get_close_matches(name, sorted(known), n=SHOWN, cutoff=0.3))


def _configs_in(folder: Path) -> str:
    names = sorted(path.name for path in folder.glob('*.py'))
    if not names:
        return ' without configs: name a file'
    more = f', and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return f': name a config in it: {", ".join(names[:SHOWN])}{more}'


def find_checkpoint(path: str | Path) -> Path:
    """The file at a path.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is empty, or of a format that is not PyTorch's; with the way out.
    """
    path = Path(path).expanduser()
    if path.is_file():
        if other := _other_format(path):
            raise ValueError(f'refused to load {path}: {other}')
        return path
    if path.is_dir():
        raise FileNotFoundError(f'{path} is a folder: name a checkpoint in it, a .pth file')
    raise FileNotFoundError(f'checkpoint not found: {path}')


def _other_format(path: Path) -> str | None:
    """What a file is, if it is neither a zip archive of PyTorch's nor, as formerly, a pickle."""
    with path.open('rb') as file:
        start = file.read(9)
    if not start:
        return 'it is empty (0 bytes). Copy or download it again'
    # Their length in eight bytes, then the names of the weights as JSON.
    if path.suffix == '.safetensors' or (len(start) == 9 and start[5:] == b'\0\0\0{'):
        return (
            'it holds safetensors. Save them as PyTorch does: torch.save(safetensors.torch.'
            f"load_file('{path.name}'), 'weights.pth')"
        )
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = {Path(name).name for name in archive.namelist()}
        if 'constants.pkl' in names:
            return (
                'it is a TorchScript archive, a program. Save the weights alone: torch.save('
                f"torch.jit.load('{path.name}').state_dict(), 'weights.pth')"
            )
        return (
            None
            if 'data.pkl' in names
            else 'it is a zip archive, but none of PyTorch: name the .pth file in it'
        )
    if not start.startswith((b'PK', b'\x80')):
        return 'it is no PyTorch checkpoint (not a pickle of weights)'
    return None


def check_folder(name: str, folder: str | Path) -> None:
    """Check, without a trace, that files can be written into a folder, which need not be there.

    Args:
        name: What messages call it, such as ``'--work-dir'``.
        folder: Its path.

    Raises:
        ValueError: If a file is in its place, or in that of a folder above it.
        OSError: If nothing can be written there.
    """
    place = Path(folder).absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise ValueError(
            f'{name} {folder}: {place} is a file, where a folder is needed. Choose another path'
        )
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise OSError(
            f'{name} {folder}: {place} cannot be written into ({error.strerror}). Choose another '
            'folder, or change its permissions'
        ) from error


def check_empty_folder(name: str, folder: str | Path) -> None:
    """Check that a folder can be written into, and that nothing in it would be replaced.

    Raises:
        ValueError: As :func:`check_folder`, or if there is something in it.
        OSError: As :func:`check_folder`.
    """
    check_folder(name, folder)
    inside = next(Path(folder).iterdir(), None) if Path(folder).is_dir() else None
    if inside is not None:
        raise ValueError(
            f'{name} {folder} holds files already, {inside.name} for one, which could be replaced: '
            'choose a new folder, or empty this one'
        )
