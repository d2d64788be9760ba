"""The student beside every checkpoint, as mmseg itself would have saved it."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmseg_adm.checkpoint import damage_of
from mmseg_adm.config import is_distillation_config, resolve_config
from mmseg_adm.engine.checkpoints import checkpoint_files
from mmseg_adm.export import export_member, plain_config
from mmseg_adm.registry import HOOKS

from .checkpoint import OUTDATED


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Writes ``student_<name>.pth`` and ``.py`` for each checkpoint ``<name>.pth``.

    For the last and for the best ones, after ``CheckpointHook`` has saved them (with the
    averaged weights, where ``EMAHook`` is on). What belongs to a checkpoint that was removed
    is removed too. A resumed run first makes up for what a kill has left undone of either.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Refuse what could not be exported when the first checkpoint is there; clear up.

        Raises:
            ValueError: If the model is no distiller.
        """
        if not is_distillation_config(runner.cfg):
            raise ValueError('StudentCheckpointHook needs a KnowledgeDistiller')
        self.config = resolve_config(runner.cfg)
        if 'test_pipeline' not in plain_config(self.config):
            runner.logger.warning(
                'The exported student will not say how its images are prepared, as MMSegInferencer '
                'needs it: there is neither a test_dataloader nor a val_dataloader with a pipeline'
            )
        self.student = runner.cfg.model.get('student', 'student')
        self._clear_up(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Export what was saved in this iteration."""
        self._export(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Export what was saved after this epoch."""
        self._export(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Export the best so far."""
        self._export(runner)

    def _target(self, checkpoint: Path) -> Path:
        return checkpoint.with_name(f'{self.student}_{checkpoint.name}')

    @master_only
    def _clear_up(self, runner: Runner) -> None:
        """Go on with the exports of a run that is resumed: complete them, remove what is left."""
        folder, _ = checkpoint_files(runner.cfg)
        targets = {self._target(path): path for path in folder.glob('*.pth')}
        self.exported = {target: path for target, path in targets.items() if _is_whole(target)}
        for name in runner.message_hub.runtime_info.get(OUTDATED, ()):
            self.exported[self._target(folder / name)] = folder / name
        self._remove_orphans()
        damaged = [path for path in _saved_checkpoints(runner) if damage_of(path)]
        self.seen = (*self.exported.values(), *damaged)
        self._export(runner)

    @master_only
    def _export(self, runner: Runner) -> None:
        saved = _saved_checkpoints(runner)
        new = [checkpoint for checkpoint in saved if checkpoint not in self.seen]
        self.seen = saved
        for checkpoint in filter(Path.is_file, new):
            target = export_member(self.config, checkpoint, self._target(checkpoint))
            self.exported[target] = checkpoint
        if new:
            self._remove_orphans()

    def _remove_orphans(self) -> None:
        for target, checkpoint in list(self.exported.items()):
            if not checkpoint.is_file():
                for path in (target, target.with_suffix('.py')):
                    path.unlink(missing_ok=True)
                del self.exported[target]


def _is_whole(target: Path) -> bool:
    return target.is_file() and target.with_suffix('.py').is_file()


def _saved_checkpoints(runner: Runner) -> tuple[Path, ...]:
    paths = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            best = getattr(hook, 'best_ckpt_path_dict', {}) or {}
            paths += [hook.last_ckpt, getattr(hook, 'best_ckpt_path', None), *best.values()]
    return tuple(Path(path) for path in paths if path)
