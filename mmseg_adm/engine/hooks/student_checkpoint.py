"""The student beside every checkpoint, as mmseg itself would have saved it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmengine.dist import master_only
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmseg_adm.export import export_member, is_distillation_config
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class StudentCheckpointHook(Hook):
    """Writes ``student_<name>.pth`` and ``.py`` for each checkpoint ``<name>.pth``.

    For the last and for the best ones, after ``CheckpointHook`` has saved them (with the
    averaged weights, where ``EMAHook`` is on). What belongs to a checkpoint that was removed
    is removed too.
    """

    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Refuse a model without members.

        Raises:
            ValueError: If it is no distiller.
        """
        if not is_distillation_config(runner.cfg):
            raise ValueError('StudentCheckpointHook needs a KnowledgeDistiller')
        self.student = runner.cfg.model.get('student', 'student')

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

    @master_only
    def _export(self, runner: Runner) -> None:
        for checkpoint in _saved_checkpoints(runner):
            target = checkpoint.with_name(f'{self.student}_{checkpoint.name}')
            newer = checkpoint.stat().st_mtime_ns
            if not target.is_file() or target.stat().st_mtime_ns < newer:
                export_member(runner.cfg, checkpoint, target)
                self._remove_orphans(checkpoint.parent)

    def _remove_orphans(self, folder: Path) -> None:
        for target in folder.glob(f'{self.student}_*.pth'):
            if not target.with_name(target.name[len(self.student) + 1 :]).is_file():
                target.unlink()
                target.with_suffix('.py').unlink(missing_ok=True)


def _saved_checkpoints(runner: Runner) -> Iterator[Path]:
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook):
            continue
        best = getattr(hook, 'best_ckpt_path_dict', {}) or {}
        for path in (hook.last_ckpt, getattr(hook, 'best_ckpt_path', None), *best.values()):
            if path and Path(path).is_file():
                yield Path(path)
