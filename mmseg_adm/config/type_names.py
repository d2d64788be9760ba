"""Types in a config by name, whichever way it was written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

# Keys whose value MMEngine looks up by name.
LOOKED_UP = ('type', 'constructor')
SCOPE = 'mmseg'


def with_type_names(config: Config) -> Config:
    """A config in which classes, and paths to them, are the names that mmseg's configs have.

    Pure-Python configs hold the classes themselves, and any config may hold a path
    (``'mmengine.dataset.InfiniteSampler'``). Named alike, they are compared alike, and can be
    written and read again. What has no short name is named by its path.

    Args:
        config: Is left as it is, and returned if it has short names only.
    """
    if not any(map(_is_long, _types(dict(config._cfg_dict)))):
        return config
    # MMEngine writes the classes of a pure-Python config as paths.
    named = _named(config.to_dict())
    return Config(named, config.text, config.filename, config.env_variables)


def _types(node: Any) -> Iterator[Any]:
    if isinstance(node, dict):
        # Not node.items(): ConfigDict would import what a pure-Python config names.
        for key in node:
            value = dict.__getitem__(node, key)
            if key in LOOKED_UP:
                yield value
            yield from _types(value)
    elif isinstance(node, (list, tuple)):
        for child in node:
            yield from _types(child)


def _is_long(value: Any) -> bool:
    """Whether it is no name, or one with a place; ours are always written with their scope."""
    if isinstance(value, str):
        return '.' in value and not (value.startswith('mmseg_adm.') and value.count('.') == 1)
    return value is not None and not isinstance(value, (dict, list, tuple))


def _named(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _short(value) if key in LOOKED_UP and _is_long(value) else _named(value)
                for key, value in node.items()}  # fmt: skip
    if isinstance(node, (list, tuple)):
        return type(node)(_named(child) for child in node)
    return node


def _short(value: Any) -> str:
    """The name that means the same in mmseg's scope, else the path."""
    if isinstance(value, str):
        path, kind = value, _object_at(value)
    else:
        path, kind = f'{value.__module__}.{value.__qualname__}', value
    if kind is None:
        return path  # Whoever builds it says that it is not there.
    if path.startswith('mmseg_adm.'):
        return f'mmseg_adm.{kind.__name__}'
    name = path.rpartition('.')[2]
    same = any(_found(registry, name) is kind for registry in _registries())
    return name if same else path


def _object_at(path: str) -> Any:
    """What stands at ``module.Name``, or in a scope as ``scope.Name``."""
    scope, _, name = path.partition('.')
    for registry in _registries():
        if scope in registry.children and name in registry.children[scope].module_dict:
            return registry.children[scope].module_dict[name]
        if registry.scope == scope and name in registry.module_dict:
            return registry.module_dict[name]
    try:
        return get_object_from_string(path)
    except (ImportError, AttributeError, ValueError):
        return None


def _found(registry: Registry, name: str) -> Any:
    child = registry.children.get(SCOPE)
    if child is not None and name in child.module_dict:
        return child.module_dict[name]
    return registry.module_dict.get(name)


@cache
def _registries() -> list[Registry]:
    import mmengine.registry
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=False)
    return [each for each in vars(mmengine.registry).values() if isinstance(each, Registry)]
