"""Checkpoints: read without running code, fetched before they are read, loaded strictly."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from mmengine.dist import barrier
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

REMOTE_PREFIXES = (
    'http://', 'https://', 'open-mmlab://', 'openmmlab://', 'torchvision://', 'modelzoo://',
    'mmcls://',
)  # fmt: skip
UNSUPPORTED_PREFIXES = ('pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://')
SHOWN_KEYS = 5
# Where a run's checkpoint keeps what it depends on, in its meta.
RECORD = 'mmseg_adm'


def _history_buffer_method(owner: type, name: str) -> object:
    """What ``builtins.getattr`` may do in a checkpoint of MMEngine's, and no more."""
    if owner is HistoryBuffer and name in ('mean', 'min', 'max', 'current'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'the checkpoint asks for {owner}.{name}')


def _safe_globals() -> list:
    """The classes that MMEngine itself stores beside the weights."""
    core = getattr(np, '_core', None) or np.core  # numpy 2, or 1
    dtypes = {type(np.dtype(name)) for name in ('float32', 'float64', 'int64')}
    globals_ = [HistoryBuffer, np.ndarray, np.dtype, *sorted(dtypes, key=str)]
    for function in (core.multiarray._reconstruct, core.multiarray.scalar):
        globals_.append(function)
        # Written under numpy 1 and read under numpy 2, or the other way round.
        globals_ += [(function, f'numpy.{name}.multiarray.{function.__name__}')
                     for name in ('core', '_core')]  # fmt: skip
    globals_.append((_history_buffer_method, 'builtins.getattr'))
    return globals_


def sha256_of(path: Path) -> str:
    """Hash of a file, by which a run knows a frozen member again."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_record(member: str) -> str:
    """The key of a frozen member's hash in a run's record."""
    return f'weights of {member} (sha256)'


def read_checkpoint(path: str | Path, map_location: str | torch.device | None = 'cpu') -> dict:
    """Read a local checkpoint, weights only: nothing in the file is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds objects other than weights and MMEngine's records, or
            is damaged.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint not found: {path}')
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f'refused to load {path}: it holds objects that could run code when unpickled, or '
            f"is no PyTorch checkpoint ({_first_unsafe(str(error))}). Only weights and MMEngine's "
            'own records are read. If you trust the file, save its state_dict alone and use that'
        ) from None
    except Exception as error:  # a damaged pickle can fail anywhere in the unpickler
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(
            f'{path} is damaged or truncated ({reason}). Copy or download it again'
        ) from None
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{path} holds a {type(checkpoint).__name__}, not a state dict')
    if isinstance(checkpoint.get('meta'), dict):
        # MMEngine's resume runs this text as Python.
        checkpoint['meta'].pop('config', None)
    return checkpoint


def _first_unsafe(message: str) -> str:
    """What the unpickler stumbled over, without PyTorch's advice to switch the check off."""
    found = re.search(r'GLOBAL \S+|the checkpoint asks for .*', message)
    return found[0] if found else 'not a pickle of weights'


def fetch(url: str) -> Path:
    """Download ``url`` once into PyTorch's cache, and say where it lies.

    One process of a machine downloads, the others wait for it.

    Raises:
        FileNotFoundError: If it cannot be downloaded; the message names ``--no-pretrained``.
    """
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    target = folder / url.rsplit('/', 1)[-1].split('?')[0]
    problem: Exception | None = None
    if not target.is_file() and int(os.environ.get('LOCAL_RANK', 0)) == 0:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), progress=False)
        except (OSError, ValueError, HTTPException) as error:
            problem = error
    barrier()
    if not target.is_file():
        raise FileNotFoundError(
            f'could not download {url} ({problem or "see the first process"}). Download it '
            f'elsewhere and put it at {target}, or pass --no-pretrained to start without '
            'downloaded weights; a frozen teacher then needs a file of its own, '
            'model.members.<name>.checkpoint=PATH'
        )
    return target


def _url_of(name: str) -> str:
    """The address behind a model-zoo name such as ``open-mmlab://resnet18_v1c``."""
    scheme, _, model = name.partition('://')
    if scheme in ('http', 'https'):
        return name
    if scheme in ('open-mmlab', 'openmmlab'):
        model = mmengine_checkpoint.get_deprecated_model_names().get(model, model)
        urls = mmengine_checkpoint.get_external_models()
    elif scheme == 'mmcls':
        urls = mmengine_checkpoint.get_mmcls_models()
    else:
        urls = mmengine_checkpoint.get_torchvision_models()
    if model not in urls:
        raise ValueError(f"'{name}' is not a model that MMEngine knows")
    return urls[model]


def load_from_local(filename: str, map_location: str | torch.device | None = None) -> dict:
    """MMEngine's loader for files, weights only."""
    return read_checkpoint(filename, map_location)


def load_from_remote(filename: str, map_location: str | torch.device | None = None) -> dict:
    """MMEngine's loader for addresses and model-zoo names: download, then weights only."""
    checkpoint = read_checkpoint(fetch(_url_of(filename)), map_location)
    if filename.startswith('mmcls://'):
        return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)
    return checkpoint


def load_from_unsupported(filename: str, map_location: object = None) -> dict:
    """Stand in for MMEngine's loaders that would unpickle whatever they are given."""
    raise ValueError(f'{filename} cannot be read weights-only: download it and give its path')


def install_safe_loading() -> None:
    """Make every checkpoint that MMEngine reads in this process a weights-only one."""
    CheckpointLoader.register_scheme('', load_from_local, force=True)
    CheckpointLoader.register_scheme(REMOTE_PREFIXES, load_from_remote, force=True)
    CheckpointLoader.register_scheme(UNSUPPORTED_PREFIXES, load_from_unsupported, force=True)


def is_remote(checkpoint: object) -> bool:
    """Whether a checkpoint would have to be downloaded."""
    return isinstance(checkpoint, str) and checkpoint.startswith(REMOTE_PREFIXES)


def local_path(checkpoint: str) -> Path:
    """The file behind a path, an address or a model-zoo name, downloaded if need be."""
    return fetch(_url_of(checkpoint)) if is_remote(checkpoint) else Path(checkpoint).expanduser()


def weights_of(checkpoint: Mapping) -> Mapping[str, Tensor]:
    """The state dict of a checkpoint, with or without the records around it.

    Raises:
        ValueError: If it holds anything else.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise ValueError('the checkpoint holds no state dict: a dict of tensors by name')
    return weights


def check_state_dict(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Raise ``ValueError`` with a short difference unless ``weights`` fit ``module`` exactly."""
    expected = module.state_dict()
    # Checkpoints older than PyTorch 0.4.1 lack this counter; PyTorch fills it in.
    missing = [key for key in expected if key not in weights and 'num_batches_tracked' not in key]
    unexpected = [key for key in weights if key not in expected]
    shapes = [
        f'{key}: expected {tuple(expected[key].shape)}, found {tuple(weights[key].shape)}'
        for key in expected
        if key in weights and expected[key].shape != weights[key].shape
    ]
    problems = [
        f'  {len(keys)} {title}: {_some(keys)}'
        for title, keys in (
            ('missing', missing), ('unexpected', unexpected), ('of another shape', shapes),
        )
        if keys
    ]  # fmt: skip
    if problems:
        raise ValueError('\n'.join([f'{source} does not fit {type(module).__name__}:', *problems]))


def _some(keys: list[str]) -> str:
    more = f', and {len(keys) - SHOWN_KEYS} more' if len(keys) > SHOWN_KEYS else ''
    return ', '.join(keys[:SHOWN_KEYS]) + more


def drop_pretrained(config: dict, remote_only: bool = False) -> None:
    """Remove initialisation from checkpoints, in place and at any depth.

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
