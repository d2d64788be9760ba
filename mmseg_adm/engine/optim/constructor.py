"""From a config to one optimizer per member or group of modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIMIZERS
from torch import nn

from mmseg_adm.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .groups import GroupOptimWrapper

OPTIONS = ('accumulative_counts', 'dtype', 'loss_scale')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class GroupOptimWrapperConstructor:
    """One optimizer per group::

        optim_wrapper = dict(
            constructor='mmseg_adm.GroupOptimWrapperConstructor',
            teacher=dict(optimizer=dict(type='AdamW', ...), clip_grad=dict(max_norm=1)),
            student=dict(optimizer=dict(type='SGD', ...), paramwise_cfg=dict(...)),
            rest=dict(optimizer=dict(type='SGD', ...)),
        )

    A group has ``optimizer``, ``paramwise_cfg``, ``clip_grad`` and ``constructor`` as in
    MMEngine, and ``modules``, paths as in ``model.named_modules()``. Without ``modules`` a group
    takes the member or the method of its name; one group of another name may have none: it
    takes the rest, which may be nothing. Where paths lie in each other, the longer one counts.
    Beside the groups stand ``accumulative_counts``, ``dtype`` and ``loss_scale`` of
    :class:`GroupOptimWrapper`.

    Args:
        optim_wrapper_cfg: The groups and options.
        paramwise_cfg: Not for all groups at once: must be ``None``.

    Raises:
        ValueError: If a group, path or option is wrong, or a parameter would have no optimizer.
    """

    def __init__(self, optim_wrapper_cfg: Mapping, paramwise_cfg: Mapping | None = None) -> None:
        if paramwise_cfg:
            raise ValueError('paramwise_cfg belongs into each group of the optim_wrapper')
        config = dict(optim_wrapper_cfg)
        if (kind := config.pop('type', 'OptimWrapper')) != 'OptimWrapper':
            raise ValueError(
                f"optim_wrapper.type='{kind}' has no place beside groups: mixed precision is "
                "dtype='float16' or 'bfloat16'"
            )
        self.options = {key: config.pop(key) for key in OPTIONS if key in config}
        self.groups = copy.deepcopy(config)
        for name, group in self.groups.items():
            if not isinstance(group, Mapping) or 'optimizer' not in group:
                raise ValueError(
                    f"'{name}' of the optim_wrapper must be a group with an optimizer, or one of "
                    f'the options {", ".join(OPTIONS)}; got {group!r}'
                )
            kind = group.get('type', 'OptimWrapper')
            if kind != 'OptimWrapper' or 'accumulative_counts' in group:
                raise ValueError(
                    f"group '{name}' of the optim_wrapper has a type or accumulative_counts of its "
                    'own, but all groups step together: mixed precision is dtype, beside the '
                    'groups, like accumulative_counts'
                )
        if not self.groups:
            raise ValueError('the optim_wrapper has no groups: name at least one')

    def __call__(self, model: nn.Module) -> GroupOptimWrapper:
        """Build the optimizers of ``model``."""
        if is_model_wrapper(model):
            model = model.get_submodule('module')
        paths = self._paths(model)
        wrappers = {}
        for name, group in self.groups.items():
            options = {key: value for key, value in group.items() if key != 'modules'}
            others = {path for other in paths if other != name for path in paths[other]}
            part = _part(model, paths[name], others)
            if any(True for _ in part.parameters()):
                wrappers[name] = build_optim_wrapper(part, options)
            elif paths[name] == {''}:
                wrappers[name] = _idle(options)
            else:
                raise ValueError(f"group '{name}' of the optim_wrapper has no parameters")
        _check_complete(model, wrappers)
        device = next(model.parameters()).device.type
        return GroupOptimWrapper(wrappers, device=device, **self.options)

    def _paths(self, model: nn.Module) -> dict[str, set[str]]:
        modules = dict(model.named_modules())
        paths, rest = {}, []
        for name, group in self.groups.items():
            own = group.get('modules')
            if own is None:
                own = [path for path in (f'members.{name}', f'methods.{name}') if path in modules]
                if not own:
                    rest.append(name)
                    own = ['']
            for path in own:
                if path not in modules:
                    raise ValueError(f"group '{name}' of the optim_wrapper: no module '{path}'")
            paths[name] = set(own)
        if len(rest) > 1:
            raise ValueError(
                f'only one group can take the rest, but {", ".join(rest)} are neither members nor '
                'methods and have no modules'
            )
        return paths


def _idle(options: Mapping) -> OptimWrapper:
    """An optimizer of nothing: schedules and checkpoints then have the same groups always."""
    return OptimWrapper(OPTIMIZERS.build(dict(options['optimizer'], params=[dict(params=[])])))


def _part(model: nn.Module, paths: Iterable[str], others: set[str]) -> nn.Module:
    """The modules at ``paths`` without those of other groups inside them."""
    parts = [_pruned(model.get_submodule(path), path, others) for path in sorted(paths)]
    # Alone it keeps the names that a plain segmentor's paramwise_cfg speaks of.
    return parts[0] if len(parts) == 1 else nn.ModuleList(parts)


def _pruned(module: nn.Module, path: str, others: set[str]) -> nn.Module:
    """A view of ``module`` without the children that belong to others; itself if there are none."""
    inside = {other for other in others if not path or other.startswith(f'{path}.')} - {path, ''}
    if not inside:
        return module
    view = copy.copy(module)
    view._modules = {}
    for name, child in module._modules.items():
        child_path = f'{path}.{name}' if path else name
        if child is not None and child_path not in inside:
            view._modules[name] = _pruned(child, child_path, inside)
    return view


def _check_complete(model: nn.Module, wrappers: Mapping) -> None:
    taken: dict[int, str] = {}
    for name, wrapper in wrappers.items():
        for group in wrapper.optimizer.param_groups:
            for parameter in group['params']:
                if taken.setdefault(id(parameter), name) != name:
                    raise ValueError(
                        f"groups '{taken[id(parameter)]}' and '{name}' of the optim_wrapper share "
                        'parameters: their modules overlap'
                    )
    left = sorted({'.'.join(path.split('.')[:2]) for path, parameter in model.named_parameters()
                   if parameter.requires_grad and id(parameter) not in taken})  # fmt: skip
    if left:
        raise ValueError(
            f'no group of the optim_wrapper trains {", ".join(left)}: name them, or add a group '
            'without modules, such as rest=dict(optimizer=...), for all that is left'
        )
