"""What else a run is logged to: MMEngine's visualization backends, and the packages they import."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from .registered import class_of
from .structure import backends_of

TENSORBOARD = 'TensorboardVisBackend'
# By class of MMEngine's: the package, which is called alike where it is installed and imported.
PACKAGES = {
    TENSORBOARD: 'tensorboard',
    'WandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml',
    'NeptuneVisBackend': 'neptune',
    'DVCLiveVisBackend': 'dvclive',
    'AimVisBackend': 'aim',
}


def check_trackers(config: Config) -> None:
    """Refuse backends whose packages are not installed: MMEngine imports them in the run's folder.

    Args:
        config: Of the run; the types that it names are registered.

    Raises:
        ValueError: With the setting, and what to install.
    """
    for path, backend in backends_of(config):
        name, package = _needed(backend)
        if package and find_spec(package) is None:
            raise ValueError(
                f'{path}: {name} writes by {package}, which is not installed: pip install {package}'
            )


def add_tensorboard(config: Config) -> None:
    """Log to TensorBoard too, in place; once, however often it is asked for."""
    if any(_needed(backend)[0] == TENSORBOARD for _, backend in backends_of(config)):
        return
    # What MMEngine gives a run whose config says nothing of it.
    visualizer = config.get('visualizer') or dict(
        type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
    )
    others = [backend for _, backend in backends_of(Config(dict(visualizer=visualizer)))]
    config.visualizer = dict(visualizer, vis_backends=[*others, dict(type=TENSORBOARD)])


def _needed(backend: Any) -> tuple[str, str | None]:
    """The class of MMEngine's that a backend is, or comes from, and the package that it needs."""
    kind = backend.get('type') if isinstance(backend, Mapping) else type(backend)
    kind = class_of(kind, VISBACKENDS)
    names = [base.__name__ for base in inspect.getmro(kind)] if inspect.isclass(kind) else []
    name = next((each for each in names if each in PACKAGES), '')
    return name, PACKAGES.get(name)
