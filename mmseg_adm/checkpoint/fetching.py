"""From what a config names as a checkpoint to a file on this machine."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch
from filelock import FileLock
from mmengine.runner import checkpoint as mmengine_checkpoint

REMOTE_PREFIXES = (
    'http://', 'https://', 'open-mmlab://', 'openmmlab://', 'torchvision://', 'modelzoo://',
    'mmcls://',
)  # fmt: skip


def _downloads() -> Path:
    return Path(torch.hub.get_dir()) / 'checkpoints'


def fetch(url: str) -> Path:
    """Download ``url`` once into PyTorch's cache, and say where it lies.

    A name without a hash may be that of other files too: it gets one of the address. One process
    of a machine downloads, the others wait for it.

    Raises:
        FileNotFoundError: If it cannot be downloaded; the message names ``--no-pretrained``.
    """
    target = _downloads() / _cached_name(url)
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f'{target}.lock'):
            if not target.is_file():
                torch.hub.download_url_to_file(url, str(target), progress=False)
    except (OSError, ValueError, HTTPException) as error:
        raise FileNotFoundError(
            f'could not download {url} ({error}). Download it elsewhere and put it at {target}, or '
            'pass --no-pretrained to start without downloaded weights; a frozen teacher then needs '
            'a file of its own, model.members.<name>.checkpoint=PATH'
        ) from error
    return target


def _cached_name(url: str) -> str:
    name = PurePosixPath(urlparse(url).path)
    if re.search(r'-[0-9a-f]{8,}\.\w+$', name.name):
        return name.name
    return f'{name.stem}-{hashlib.sha256(url.encode()).hexdigest()[:8]}{name.suffix}'


def is_downloaded(path: Path) -> bool:
    """Whether a file, or a link to it, lies where :func:`fetch` puts what it downloads."""
    cache = _downloads().resolve()
    places = (path, *path.absolute().parents)
    return any(place.resolve().is_relative_to(cache) for place in places)


def url_of(name: str) -> str:
    """The address behind a model-zoo name such as ``open-mmlab://resnet18_v1c``.

    Raises:
        ValueError: If MMEngine knows no such model, or cannot look it up.
    """
    scheme, _, model = name.partition('://')
    if scheme in ('http', 'https'):
        return name
    if scheme in ('open-mmlab', 'openmmlab'):
        model = mmengine_checkpoint.get_deprecated_model_names().get(model, model)
        urls = mmengine_checkpoint.get_external_models()
    elif scheme == 'mmcls':
        urls = mmengine_checkpoint.get_mmcls_models()
    else:
        try:
            urls = mmengine_checkpoint.get_torchvision_models()
        except ImportError as error:
            raise ValueError(
                f"'{name}' is looked up in torchvision, which cannot be imported ({error}): "
                'install it, or give the path or the address of a file'
            ) from error
    if model not in urls:
        raise ValueError(f"'{name}' is not a model that MMEngine knows")
    return urls[model]


def is_remote(checkpoint: object) -> bool:
    """Whether a checkpoint would have to be downloaded."""
    return isinstance(checkpoint, str) and checkpoint.startswith(REMOTE_PREFIXES)


def local_path(checkpoint: str) -> Path:
    """The file behind a path, an address or a model-zoo name, downloaded if need be.

    Raises:
        FileNotFoundError: If it cannot be downloaded.
        ValueError: If it is an address of another kind.
    """
    if is_remote(checkpoint):
        return fetch(url_of(checkpoint))
    if '://' in str(checkpoint):
        raise ValueError(f'{checkpoint} cannot be downloaded from here: do so, and give its path')
    return Path(checkpoint).expanduser()


def drop_pretrained(config: dict, remote_only: bool = False) -> None:
    """Remove initialization from checkpoints, in place and at any depth.

    Args:
        config: A model config.
        remote_only: Keep what lies in local files.
    """

    def dropped(source: object) -> bool:
        return is_remote(source) or not remote_only

    for key in ('pretrained', 'checkpoint'):
        if config.get(key) and config.get('type') != 'Pretrained' and dropped(config[key]):
            config[key] = None
    if init := config.get('init_cfg'):
        steps = [init] if isinstance(init, dict) else list(init)
        kept = [step for step in steps
                if step.get('type') != 'Pretrained' or not dropped(step['checkpoint'])]  # fmt: skip
        if len(kept) < len(steps):
            config['init_cfg'] = kept or None
    for value in config.values():
        for child in value if isinstance(value, (list, tuple)) else [value]:
            if isinstance(child, dict):
                drop_pretrained(child, remote_only)
