"""Child registries: a config writes ``type='mmseg_adm.X'`` and needs no ``custom_imports``.

Their parents are MMEngine's roots, so types without a prefix stay those of the default
scope, ``mmseg``.
"""

from mmengine import registry as mmengine_registry
from mmengine.registry import Registry

from .stack import check_installed

# Whoever builds something of this package by its name comes by here.
check_installed()


def _child(parent: Registry, *locations: str) -> Registry:
    return Registry(parent.name, parent=parent, scope='mmseg_adm', locations=list(locations))


MODELS = _child(mmengine_registry.MODELS, 'mmseg_adm.models')
DATASETS = _child(mmengine_registry.DATASETS, 'mmseg_adm.datasets')
FUNCTIONS = _child(mmengine_registry.FUNCTIONS, 'mmseg_adm.datasets')
DATA_SAMPLERS = _child(mmengine_registry.DATA_SAMPLERS, 'mmseg_adm.datasets')
HOOKS = _child(mmengine_registry.HOOKS, 'mmseg_adm.engine')
METRICS = _child(mmengine_registry.METRICS, 'mmseg_adm.engine')
LOG_PROCESSORS = _child(mmengine_registry.LOG_PROCESSORS, 'mmseg_adm.engine')
LOOPS = _child(mmengine_registry.LOOPS, 'mmseg_adm.engine')
OPTIM_WRAPPERS = _child(mmengine_registry.OPTIM_WRAPPERS, 'mmseg_adm.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    mmengine_registry.OPTIM_WRAPPER_CONSTRUCTORS, 'mmseg_adm.engine'
)
