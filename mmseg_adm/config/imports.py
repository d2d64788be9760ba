"""What a config imports: the modules of several of them, in one."""

from __future__ import annotations

from collections.abc import Iterable

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings


def joined_imports(configs: Iterable[Config]) -> dict:
    """The ``custom_imports`` of several configs as one; empty if none has any.

    One flag of MMEngine's holds for all modules. So where one config may not do without its
    modules, those that another one may do without are left out if they cannot be imported here.
    """
    optional: dict[str, bool] = {}
    for config in configs:
        given = config.get('custom_imports') or {}
        names = given.get('imports') or []
        for name in [names] if isinstance(names, str) else names:
            allowed = given.get('allow_failed_imports', False)
            optional[name] = optional.get(name, True) and allowed
    if not all(optional.values()):
        for name in [name for name, allowed in optional.items() if allowed]:
            if import_modules_from_strings(name, allow_failed_imports=True) is None:
                del optional[name]
    if not optional:
        return {}
    return dict(imports=list(optional), allow_failed_imports=all(optional.values()))


def first_cause(error: ImportError) -> BaseException:
    """Why an import failed: MMEngine words it anew, twice, and lists where Python looks."""
    while isinstance(error.__context__, ImportError):
        error = error.__context__
    return error
