"""MMEngine's Runner with a screen that starts quietly."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.dataset import Compose
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.registry import DATA_SAMPLERS
from mmengine.runner import LogProcessor, Runner
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from mmseg_adm.config.registered import class_of
from mmseg_adm.datasets.checks import plain_datasets
from mmseg_adm.datasets.stream import StreamSampler
from mmseg_adm.mistakes import building, words_of

# Beginnings of what MMEngine logs by hundreds of lines, or nobody can act on: for the file alone.
FILE_ONLY = (
    'System environment:',
    'Config:\n',
    'Hooks will be executed in the following order:',
    'paramwise_options -- ',
    'Exp name: ',
    'Distributed training is not used, all SyncBatchNorm',
    'The prefix is not set in metric class',
)

# The name of a run's folder, as MMEngine writes it.
STAMP = '%Y%m%d_%H%M%S'
# Those of the runs that this process has begun.
STAMPS: set[str] = set()


class UnreadableSample(ValueError):
    """An image of a data set that could not be loaded, with its files.

    Args:
        message: The text; or that of PyTorch, which raises the error of a worker anew with the
            worker's traceback before it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition(f'{type(self).__name__}: ')[2].strip())


class QuietRunner(Runner):
    """Shows what a training does; its surroundings are in the log file of the work dir.

    Each run has a folder of its own in the work dir, also when two start within a second. What
    cannot be built names the setting of the config.

    Arguments are those of :class:`mmengine.runner.Runner`.
    """

    def __init__(self, *args, **kwargs) -> None:
        try:
            super().__init__(*args, **kwargs)
        except Exception:
            if folder := getattr(self, '_log_dir', None):
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def setup_env(self, env_cfg: dict) -> None:
        """MMEngine's surroundings; then the first second whose folder no other run has."""
        with building('env_cfg'):
            super().setup_env(env_cfg)
        stamp = self.timestamp
        stamps = [claimed(Path(self.work_dir), stamp) if self.rank == 0 else stamp]
        broadcast_object_list(stamps)
        self._timestamp = stamps[0]
        STAMPS.add(self._timestamp)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """MMEngine's logger; what is for the file alone does not reach the screen."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(for_the_screen)
        return logger

    def set_randomness(self, *args, **kwargs) -> None:
        """Seed it."""
        with building('randomness'):
            super().set_randomness(*args, **kwargs)

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """The networks."""
        with building('model'):
            return super().build_model(model)

    def build_visualizer(self, visualizer: Visualizer | dict | None = None) -> Visualizer:
        """What draws, under the run's name.

        Of a name of the config's, MMEngine would give the visualizer of the process's first run,
        which draws and logs into that one's files.
        """
        if isinstance(visualizer, Mapping):
            visualizer = {**visualizer, 'name': self.experiment_name}
        with building('visualizer'):
            return super().build_visualizer(visualizer)

    def build_log_processor(self, log_processor: LogProcessor | dict) -> LogProcessor:
        """What is logged."""
        with building('log_processor'):
            return super().build_log_processor(log_processor)

    def build_optim_wrapper(self, optim_wrapper: OptimWrapper | dict) -> OptimWrapper:
        """The optimizers."""
        with building('optim_wrapper'):
            return super().build_optim_wrapper(optim_wrapper)

    def build_param_scheduler(self, scheduler: dict | list) -> dict | list:
        """The schedules."""
        with building('param_scheduler'):
            return super().build_param_scheduler(scheduler)

    def build_evaluator(self, evaluator: dict | list | Evaluator) -> Evaluator:
        """The metrics."""
        with building('the evaluator'):
            return super().build_evaluator(evaluator)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """A data set and what loads it; its errors name the files."""
        if diff_rank_seed and seed is not None and _draws_stream(dataloader):
            # It is dealt out by rank, and must be one stream: MMEngine would draw it a seed.
            seed, diff_rank_seed = seed - get_rank(), False
        with building('the dataloader'):
            loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        for dataset in plain_datasets(loader.dataset):
            if isinstance(getattr(dataset, 'pipeline', None), Compose):
                dataset.pipeline = _NamingPipeline(dataset.pipeline.transforms)
        return loader

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """Load weights; what does not fit names the file."""
        try:
            return super().load_checkpoint(filename, *args, **kwargs)
        except ValueError as error:
            if filename in str(error):
                raise
            raise ValueError(f'{filename}: {error}') from error

    def register_default_hooks(self, hooks: dict[str, Hook | dict | None] | None = None) -> None:
        """The default hooks; ``None`` leaves one out, whether it is MMEngine's or not."""
        # MMEngine leaves out its own ones alone.
        super().register_default_hooks(
            {name: Hook() if hook is None else hook for name, hook in (hooks or {}).items()}
        )

    def register_hook(self, hook: Hook | dict, priority: int | str | None = None) -> None:
        """A hook."""
        kind = hook.get('type') if isinstance(hook, dict) else type(hook).__name__
        with building(f'the hook {kind}'):
            super().register_hook(hook, priority)


def _draws_stream(dataloader: Any) -> bool:
    sampler = dataloader.get('sampler') if isinstance(dataloader, Mapping) else None
    kind = sampler.get('type') if isinstance(sampler, Mapping) else None
    return class_of(kind, DATA_SAMPLERS) is StreamSampler


class _NamingPipeline(Compose):
    """A pipeline that says which files it failed on."""

    def __call__(self, data: dict) -> dict | None:
        files = ', '.join(str(data[key]) for key in ('img_path', 'seg_map_path') if data.get(key))
        try:
            return super().__call__(data)
        except Exception as error:  # a decoder or a transform may raise anything
            reason = words_of(error) or type(error).__name__
            raise UnreadableSample(f'could not load {files}: {reason}') from error


def for_the_screen(record: logging.LogRecord) -> bool:
    """Whether a record says something about this training."""
    # MMEngine draws a line above the environment.
    return not record.getMessage().lstrip('\n-').startswith(FILE_ONLY)


def claimed(folder: Path, stamp: str) -> str:
    """``stamp``, or the next second's that is free; its folder in ``folder`` is made.

    Taken is a second whose folder is there, or in which this process has begun another run:
    MMEngine keeps logger, logged values and visualizer by their run's name, which is its config's
    and a stamp.
    """
    while True:
        if stamp not in STAMPS:
            try:
                (folder / stamp).mkdir(parents=True)
            except FileExistsError:
                pass
            else:
                return stamp
        seconds = time.mktime(time.strptime(stamp, STAMP)) + 1
        stamp = time.strftime(STAMP, time.localtime(seconds))
