"""All that can be refused of a run without building anything, and without its files."""

from __future__ import annotations

import inspect

from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS

from .monitored import check_metrics, check_monitored
from .registered import check_registered, class_of
from .trackers import check_trackers

# What a run on a data set takes beside it and its loop.
NEEDED = {'train': ('optim_wrapper',), 'test': ('test_evaluator',)}


def check_config(config: Config, splits: tuple[str, ...] = ('train', 'val')) -> None:
    """Refuse a config of which something is missing, or names what is not there.

    Args:
        config: Of the run, its members in full.
        splits: Which of its data sets it uses, the first one in any case.

    Raises:
        ValueError: If a setting is missing, or a type, an option, a metric or a tracker's package
            is not there; if several processes would share the model otherwise than as copies.
    """
    for key in (f'{splits[0]}_dataloader', f'{splits[0]}_cfg', *NEEDED[splits[0]]):
        if not config.get(key):
            raise ValueError(f'{config.filename or "the config"} has no {key}: nothing to run')
    check_parallel(config)
    check_registered(config, splits)
    check_trackers(config)
    check_metrics(config, splits)
    if 'val' in splits:
        check_monitored(config)


def check_parallel(config: Config) -> None:
    """Refuse to spread a model over processes: FSDP, DeepSpeed, ColossalAI.

    Raises:
        ValueError: With the setting and the reason.
    """
    wrapper = (config.get('model_wrapper_cfg') or {}).get('type', 'MMDistributedDataParallel')
    runner = config.get('runner_type') or 'Runner'
    asked = {
        'model_wrapper_cfg.type': None if _copies(wrapper) else wrapper,
        'strategy': (config.get('strategy') or {}).get('type'),
        'runner_type': None if runner == 'Runner' else runner,
    }
    for setting, value in asked.items():
        if value is not None:
            name = getattr(value, '__name__', value)
            raise ValueError(
                f'{setting} is {name}, but several processes train whole copies of the model here, '
                'by MMDistributedDataParallel: frozen members lie outside of what a wrapper could '
                'split, methods read weights and maps inside the members, and checkpoints and '
                f'exports hold whole networks. Leave {setting} out; a batch that does not fit is '
                'made smaller by train_dataloader.batch_size, optim_wrapper.accumulative_counts '
                'and --amp'
            )


def _copies(wrapper: object) -> bool:
    kind = class_of(wrapper, MODEL_WRAPPERS)
    return inspect.isclass(kind) and issubclass(kind, MMDistributedDataParallel)
