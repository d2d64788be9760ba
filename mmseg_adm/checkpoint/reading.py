"""Reading a file: weights only, unless its user vouches for it."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from torch import Tensor

from mmseg_adm.paths import find_checkpoint

from .fetching import is_downloaded

_trusting = False


def trust_checkpoints(trust: bool) -> None:
    """Set, for this process, whether :func:`read_checkpoint` may run the code in local files.

    Downloaded files are never trusted. Each rank reads ``--trust-checkpoint`` itself.
    """
    global _trusting
    _trusting = trust


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


def read_checkpoint(path: str | Path, map_location: str | torch.device | None = 'cpu') -> dict:
    """Read a local checkpoint, weights only: nothing in the file is executed.

    What needs code is executed under ``--trust-checkpoint`` alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds objects other than weights and MMEngine's records, is of
            another format, or damaged, or its state dict is none.
    """
    path = find_checkpoint(path)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        checkpoint = _read_trusted(path, map_location, _first_unsafe(str(error)))
    except Exception as error:  # a damaged pickle can fail anywhere in the unpickler
        raise _damaged(path, error) from None
    if not isinstance(checkpoint, dict):
        raise ValueError(f'{path} holds a {type(checkpoint).__name__}, not a state dict')
    if 'state_dict' in checkpoint:
        weights_of(checkpoint, str(path))
    if isinstance(checkpoint.get('meta'), dict):
        # MMEngine's resume runs this text as Python.
        checkpoint['meta'].pop('config', None)
    return checkpoint


def _read_trusted(path: Path, map_location: str | torch.device | None, needed: str) -> object:
    """Unpickle in full what its user trusts.

    Raises:
        ValueError: If it is not trusted, or fails.
    """
    refusal = (
        f'refused to load {path}: it holds objects that could run code when unpickled '
        f"({needed}). Only weights and MMEngine's own records are read. If you trust the file, "
        'save its state_dict alone and use that'
    )
    if is_downloaded(path):
        raise ValueError(f'{refusal}. --trust-checkpoint does not extend to downloaded files')
    if not _trusting:
        raise ValueError(f'{refusal}, or pass --trust-checkpoint, which runs the code in it')
    print_log(f'--trust-checkpoint: running the code in {path} ({needed})', 'current', level=30)
    try:
        return torch.load(path, map_location=map_location, weights_only=False)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f'{path} needs code that is not installed here ({error}). Install it, or save the '
            "file's state_dict alone where it is"
        ) from None
    except Exception as error:  # its code can raise anything
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> ValueError:
    # PyTorch goes on with advice on its own.
    reason = str(error).partition('\n')[0].partition('. ')[0] or type(error).__name__
    return ValueError(f'{path} is damaged or truncated ({reason}). Copy or download it again')


def _first_unsafe(message: str) -> str:
    """What the unpickler stumbled over, without PyTorch's advice to switch the check off."""
    found = re.search(r'GLOBAL \S+|the checkpoint asks for .*', message)
    return found[0] if found else 'not named by PyTorch'


def weights_of(checkpoint: Mapping, source: str = 'the checkpoint') -> Mapping[str, Tensor]:
    """The state dict of a checkpoint, with or without the records around it.

    Where ``EMAHook`` was on, these are the averaged weights: it saves the others elsewhere.

    Args:
        checkpoint: As :func:`read_checkpoint` gives it.
        source: What messages call the file.

    Raises:
        ValueError: If it holds anything else.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, Mapping) or not all(
        isinstance(value, Tensor) for value in weights.values()
    ):
        raise ValueError(f'{source} holds no state dict: a dict of tensors by name')
    return weights
