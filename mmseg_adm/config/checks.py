"""All that can be refused of a run without building anything, and without its files."""

from __future__ import annotations

from mmengine.config import Config

from .monitored import check_metrics, check_monitored
from .registered import check_registered
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
            is not there.
    """
    for key in (f'{splits[0]}_dataloader', f'{splits[0]}_cfg', *NEEDED[splits[0]]):
        if not config.get(key):
            raise ValueError(f'{config.filename or "the config"} has no {key}: nothing to run')
    check_registered(config, splits)
    check_trackers(config)
    check_metrics(config, splits)
    if 'val' in splits:
        check_monitored(config)
