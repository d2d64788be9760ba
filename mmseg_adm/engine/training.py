"""MMEngine's Runner for a training that may be killed at any moment."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import broadcast_object_list, get_world_size, master_only
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from torch import nn
from torch.utils.data import DataLoader

from mmseg_adm.checkpoint import Newest, newest_whole, read_checkpoint
from mmseg_adm.config.placeholders import text_of
from mmseg_adm.mistakes import building, words_of
from mmseg_adm.models import KnowledgeDistiller
from mmseg_adm.models.compiling import compile_networks
from mmseg_adm.writing import remove_leftovers, write_text

from .checkpoints import checkpoint_files, newest_checkpoint
from .hooks.checkpoint import CheckpointHook
from .hooks.data_stream import DataStreamHook
from .hooks.missed_validation import MissedValidationHook
from .hooks.termination import TerminationHook, outlive_termination
from .runner import QuietRunner
from .unwrap import unwrapped

# MMEngine's checkpoints, in whose place those are saved that a kill does not damage.
REPLACED = ('CheckpointHook', 'mmengine.CheckpointHook', MMEngineCheckpointHook)
# The beginning of what PyTorch says of a worker that is gone.
LOST_WORKER = 'DataLoader worker'


class LostProcess(SystemExit):
    """A training that ends because another one of its processes is gone; the log says so.

    Args:
        iteration: How many it has trained.
        checkpoint: The newest whole one that it saved, if it had come to that.
    """

    def __init__(self, iteration: int, checkpoint: Path | None) -> None:
        super().__init__(1)
        self.iteration = iteration
        self.checkpoint = checkpoint


class TrainingRunner(QuietRunner):
    """Goes on from the newest whole checkpoint of its work dir, and ends in order.

    Saves by :class:`~mmseg_adm.engine.CheckpointHook` where the config says ``CheckpointHook``,
    makes up for a validation that a kill took, saves before it ends by SIGTERM, compiles members
    between their taps, and names the files of an image that cannot be loaded. Arguments are those
    of :class:`mmengine.runner.Runner`.
    """

    # MMEngine's.
    _resume: bool
    _load_from: str | None

    def register_hook(self, hook: Hook | dict, priority: int | str | None = None) -> None:
        """As in MMEngine, with this package's checkpoints in place of MMEngine's."""
        if isinstance(hook, dict) and hook.get('type') in REPLACED:
            hook = hook | dict(type=CheckpointHook)
        super().register_hook(hook, priority)

    @staticmethod
    def build_dataloader(
        dataloader: DataLoader | dict, seed: int | None = None, diff_rank_seed: bool = False
    ) -> DataLoader:
        """A loader whose workers outlive SIGTERM."""
        loader = QuietRunner.build_dataloader(dataloader, seed, diff_rank_seed)
        loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
        return loader

    @master_only
    def dump_config(self) -> None:
        """Write the config into the work dir; to resume is a start's wish, not a setting."""
        name = Path(self.cfg.filename).name if self.cfg.filename else f'{self.timestamp}.py'
        config = copy.deepcopy(self.cfg)
        config.resume = False
        write_text(Path(self.work_dir) / name, text_of(config))

    def train(self) -> nn.Module:
        """Train.

        Raises:
            TrainingTermination: After SIGTERM.
            UnreadableSample: If an image cannot be loaded.
            ChildProcessError: If a data worker has died.
            LostProcess: If another process of the training has died.
        """
        if self.rank == 0:
            _clear_up(Path(self.work_dir))
        if not any(isinstance(hook, DataStreamHook) for hook in self.hooks):
            self.logger.warning(
                'A resumed run would draw other random numbers than this one. For the same: '
                "default_hooks.data_stream=dict(type='mmseg_adm.DataStreamHook')"
            )
        self.register_hook(MissedValidationHook())
        termination = TerminationHook()
        self.register_hook(termination)
        self._take_over_seed()
        try:
            return super().train()
        except RuntimeError as error:
            if str(error).startswith(LOST_WORKER):
                raise ChildProcessError(f'a data worker is lost: {error}') from None
            if _tells_of_lost_process(error):
                raise self._without_the_others(error) from None
            raise
        finally:
            termination.stop_listening()

    def _without_the_others(self, error: RuntimeError) -> LostProcess:
        """Say why this process ends, now: the launcher is about to end it."""
        checkpoint = newest_checkpoint(self.cfg)
        how = (
            f'to go on from {checkpoint.name}, launch it again with --resume, also with another '
            'number of processes'
            if checkpoint
            else 'it has saved no checkpoint yet: launch it again'
        )
        self.logger.error(
            f'rank {self.rank}: another process of this training is gone, so it ends after '
            f'iteration {self.iter}; {how} ({words_of(error)})'
        )
        return LostProcess(self.iter, checkpoint)

    def load_or_resume(self) -> None:
        """Resume from the newest whole checkpoint of the work dir; without any, start.

        A file in ``load_from`` is resumed where the work dir has no checkpoint, or the file is one
        of its own.

        Raises:
            ValueError: If there are checkpoints, and none of them is whole.
        """
        if self._resume and not self._has_loaded:
            self._choose_checkpoint()
        super().load_or_resume()

    def _maybe_compile(self, target: str) -> None:
        """Compile the members between their taps in place of MMEngine's whole step."""
        model, options = unwrapped(self), self.cfg.get('compile')
        if not isinstance(model, KnowledgeDistiller):
            super()._maybe_compile(target)
        elif options not in (None, False):
            with building('compile'):
                parts = compile_networks(model, {} if options is True else options)
            found = '; '.join(f'{name}: {", ".join(paths)}' for name, paths in parts.items())
            self.logger.info(f'Compiled when they first run: {found}')

    def _take_over_seed(self) -> None:
        """Have a run that drew its seed go on with that one, before anything is drawn by it."""
        if not self._resume or self._randomness_cfg.get('seed') is not None:
            return
        self._choose_checkpoint()
        if self._load_from and Path(self._load_from).is_file():
            seed = read_checkpoint(self._load_from).get('meta', {}).get('seed')
            if seed is not None:
                self._randomness_cfg['seed'] = seed
                self.set_randomness(**self._randomness_cfg)

    def _choose_checkpoint(self) -> None:
        folder, template = checkpoint_files(self.cfg)
        named = self._load_from and Path(self._load_from).resolve().parent == folder.resolve()
        if named or template is None:
            return
        # One decides: what is whole to one process must not be damaged to another.
        found = [newest_whole(folder, template) if self.rank == 0 else Newest(None, {})]
        broadcast_object_list(found)
        path, skipped = found[0]
        messages = [f'Skipped {path}: {why}' for path, why in skipped.items()]
        for message in messages:
            self.logger.warning(message)
        if path is not None:
            self._load_from = str(path)
        elif messages:
            raise ValueError('\n'.join([
                f'no checkpoint in {folder} is whole:', *messages,
                'Remove them to start anew, or choose another --work-dir',
            ]))  # fmt: skip
        elif self._load_from is None:
            self.logger.info(f'There is no checkpoint in {folder}: starting a new training')
            self._resume = False


def _tells_of_lost_process(error: RuntimeError) -> bool:
    # gloo has no error of its own.
    of_network = isinstance(error, torch.distributed.DistError) or 'gloo' in str(error)
    return get_world_size() > 1 and of_network


def _start_worker(initialize: Callable[[int], None] | None, worker_id: int) -> None:
    outlive_termination(worker_id)
    if initialize is not None:
        initialize(worker_id)


def _clear_up(work_dir: Path) -> None:
    """Remove what a killed run has begun to write."""
    remove_leftovers(work_dir, '**/*')
    # MMEngine's copy of the config, which it opens a second before it knows what to write.
    for path in work_dir.glob('*/vis_data/config.py'):
        if path.stat().st_size == 0:
            path.unlink()
