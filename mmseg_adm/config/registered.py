"""The types that a config names, and their options: looked up before anything is built."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import DefaultScope, Registry
from torch.utils.data import DataLoader

from .structure import backends_of, hooks_of, listed, metrics_of, schedules_of

# Of a setting, beside the arguments of its type.
ALWAYS = ('type', '_scope_')
OWN_SCOPE = 'mmseg_adm'
# What MMEngine takes out of a setting before it builds it.
TAKEN = {
    'hook': ('priority',),
    'loader': ('num_batch_per_epoch',),
    'visualization backend': ('name',),
    'parameter scheduler': ('convert_to_iter_based', 'epoch_length'),
}


class Place(NamedTuple):
    """A setting that something is built from.

    Attributes:
        path: In the config.
        setting: The dict, or the type alone.
        kind: What it is, in words.
        registry: Where its type is registered.
    """

    path: str
    setting: Any
    kind: str
    registry: Registry


def check_registered(config: Config, splits: tuple[str, ...]) -> None:
    """Refuse types that are not registered and options that they do not have.

    Networks and methods are left to where they are built: their parts name theirs themselves.

    Args:
        config: A full config.
        splits: Which of its data sets are used: of ``'train'``, ``'val'``, ``'test'``.

    Raises:
        ValueError: With the setting and the nearest names.
    """
    scope = config.get('default_scope') or 'mmseg'
    if find_spec(scope) is None:
        raise ValueError(
            f"default_scope is '{scope}', a package that is not installed: MMSegmentation's is "
            "'mmseg'"
        )
    with DefaultScope.overwrite_default_scope(scope):
        for place in _places(config, splits):
            _check_place(place)


def class_of(kind: Any, registry: Registry) -> Any:
    """The class that a type in a config stands for; ``None`` if nothing is called so.

    Args:
        kind: A name, with its scope, its full path or neither, as mmseg's configs write it; or the
            class itself, as in pure-Python configs.
        registry: Where it is registered.
    """
    if not isinstance(kind, str):
        return kind
    scope = DefaultScope.overwrite_default_scope('mmseg')
    with scope, registry.switch_scope_and_registry(None) as found:
        return _registered(found, kind)


def _check_place(place: Place) -> None:
    setting = place.setting
    if isinstance(setting, Mapping):
        if 'type' not in setting:
            raise ValueError(f'{place.path} has no type: of which {place.kind} is it?')
        setting = setting['type']
    with place.registry.switch_scope_and_registry(None) as registry:
        kind = _registered(registry, setting) if isinstance(setting, str) else setting
        if not callable(kind):
            raise ValueError(
                f'{place.path}: no {place.kind} is called {setting!r}'
                f'{_hint(str(setting), _names(registry))}'
            )
    if isinstance(place.setting, Mapping) and inspect.isclass(kind):
        _check_options(place, kind)


def _registered(registry: Registry, name: str) -> Any:
    try:
        return registry.get(name)
    except (RuntimeError, KeyError):  # one of the two distributions raises
        return None


def _names(registry: Registry | None) -> list[str]:
    """Of a registry, of those that it looks into next, and of this package's."""
    names: list[str] = []
    while registry is not None:
        names += registry.module_dict
        if own := registry.children.get(OWN_SCOPE):
            own.import_from_location()
            names += [f'{OWN_SCOPE}.{name}' for name in own.module_dict]
        registry = registry.parent
    return names


def _check_options(place: Place, kind: type) -> None:
    known = options_of(kind)
    if known is None:
        return
    for option in place.setting:
        if option not in (*ALWAYS, *TAKEN.get(place.kind, ()), *known):
            raise ValueError(
                f"{place.path}: {kind.__name__} has no option '{option}'{_hint(str(option), known)}"
            )


def options_of(kind: type) -> list[str] | None:
    """The arguments of a class and of those that it hands ``**kwargs`` on to; ``None``: any."""
    known: list[str] = []
    for base in kind.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
        known += [each.name for each in parameters if each.kind is not each.VAR_KEYWORD][1:]
        # What is left over MMEngine would hand to its saving, which takes nothing more.
        if base is CheckpointHook or all(each.kind is not each.VAR_KEYWORD for each in parameters):
            return known
    return None


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f". Did you mean '{near[0]}'?" if near else ''


def _places(config: Config, splits: tuple[str, ...]) -> Iterator[Place]:
    yield Place('model.type', config.model.get('type'), 'network', registries.MODELS)
    for path, hook in hooks_of(config):
        # MMEngine fills in the types of its own default hooks.
        if 'type' in hook or path.startswith('custom'):
            yield Place(path, hook, 'hook', registries.HOOKS)
    for split in splits:
        loader = config.get(f'{split}_dataloader') or {}
        # Its type is PyTorch's, always.
        setting = dict(loader, type=DataLoader)
        yield Place(f'{split}_dataloader', setting, 'loader', registries.DATASETS)
        yield from _of_loader(f'{split}_dataloader', loader)
        loop = config.get(f'{split}_cfg') or {}
        if 'type' in loop:
            yield Place(f'{split}_cfg', loop, 'loop', registries.LOOPS)
        for path, metric in metrics_of(config, split):
            yield Place(path, metric, 'metric', registries.METRICS)
    if 'train' in splits:
        yield from _of_optimizers(config)
    if visualizer := config.get('visualizer'):
        yield Place('visualizer', visualizer, 'visualizer', registries.VISUALIZERS)
    for path, backend in backends_of(config):
        if isinstance(backend, Mapping):
            yield Place(path, backend, 'visualization backend', registries.VISBACKENDS)
    if 'type' in (config.get('log_processor') or {}):
        processors = registries.LOG_PROCESSORS
        yield Place('log_processor', config.log_processor, 'log processor', processors)


def _of_loader(path: str, loader: Mapping) -> Iterator[Place]:
    if 'dataset' in loader:
        yield from _of_dataset(f'{path}.dataset', loader['dataset'])
    for key, kind, registry in (('sampler', 'sampler', registries.DATA_SAMPLERS),
                                ('batch_sampler', 'batch sampler', registries.DATA_SAMPLERS),
                                ('collate_fn', 'function', registries.FUNCTIONS),
                                ('worker_init_fn', 'function', registries.FUNCTIONS)):  # fmt: skip
        if isinstance(loader.get(key), Mapping):
            yield Place(f'{path}.{key}', loader[key], kind, registry)


def _of_dataset(path: str, dataset: Mapping) -> Iterator[Place]:
    yield Place(path, dataset, 'data set', registries.DATASETS)
    inner = [('dataset', dataset.get('dataset')), *listed('datasets', dataset.get('datasets'))]
    for name, each in inner:
        if isinstance(each, Mapping):
            yield from _of_dataset(f'{path}.{name}', each)
    for name, transform in listed('pipeline', dataset.get('pipeline')):
        yield Place(f'{path}.{name}', transform, 'transform', registries.TRANSFORMS)


def _of_optimizers(config: Config) -> Iterator[Place]:
    wrapper = config.get('optim_wrapper') or {}
    if 'type' in wrapper:
        # Its options depend on the constructor.
        yield Place('optim_wrapper.type', wrapper['type'], 'optimizer wrapper',
                    registries.OPTIM_WRAPPERS)  # fmt: skip
    if 'constructor' in wrapper:
        yield Place('optim_wrapper.constructor', wrapper['constructor'], 'constructor',
                    registries.OPTIM_WRAPPER_CONSTRUCTORS)  # fmt: skip
    groups = {'optim_wrapper': wrapper}
    groups |= {f'optim_wrapper.{name}': group for name, group in wrapper.items()}
    for path, group in groups.items():
        if isinstance(group, Mapping) and isinstance(group.get('optimizer'), Mapping):
            yield Place(f'{path}.optimizer', group['optimizer'], 'optimizer', registries.OPTIMIZERS)
    for path, schedule in schedules_of(config):
        yield Place(path, schedule, 'parameter scheduler', registries.PARAM_SCHEDULERS)
