"""MMEngine's checkpoints, saved so that a kill at any moment loses none of them."""

from __future__ import annotations

from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import Runner

from mmseg_adm.checkpoint import install_whole_writing
from mmseg_adm.registry import HOOKS
from mmseg_adm.writing import write_text

# What a checkpoint records, in MMEngine's message hub: checkpoints that it makes superfluous; one
# that only the next regular one does; the iteration or epoch of the last validation.
OUTDATED = 'outdated_checkpoints'
EXTRA = 'extra_checkpoint'
VALIDATED = 'last_validation'


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """As in MMEngine, and whole: what is old is removed once what is new is on the disk.

    After a validation, the checkpoint of that iteration is saved again, so that it holds the
    outcome. Arguments are those of :class:`mmengine.hooks.CheckpointHook`, in whose place
    ``mmseg-adm train`` puts this one.
    """

    # Of MMEngine's: one of the two, by how many metrics there are.
    best_ckpt_path: str | None
    best_ckpt_path_dict: dict[str, str | None]
    extra: str | None = None
    outdated: tuple[str, ...] = ()

    def before_run(self, runner: Runner) -> None:
        """Have files written whole."""
        install_whole_writing()

    def before_train(self, runner: Runner) -> None:
        """Go on from what the resumed run kept, in this folder: it may be a copy."""
        super().before_train(runner)
        infos = runner.message_hub.runtime_info
        self.best = [self._moved(path) for path in self.best]
        for key in [key for key in infos if key.startswith('best_ckpt') or key == 'last_ckpt']:
            runner.message_hub.update_info(key, self._moved(infos[key]))
        self.last_ckpt = infos.get('last_ckpt')
        self.extra = infos.get(EXTRA)
        self.outdated = tuple(infos.get(OUTDATED, ()))
        self._remove_outdated()

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        """Save a new best checkpoint, then the last one once more, then remove the old best."""
        runner.message_hub.update_info(VALIDATED, self._step(runner))
        before = self.best if self.save_best else []
        # MMEngine removes the best checkpoint before it writes the next, and saves the last one
        # where there is a new best alone.
        last, self.last_ckpt = self.last_ckpt, None
        self.best = [None for _ in before]
        super().after_val_epoch(runner, metrics)
        self.last_ckpt = last
        new = self.best
        self.best = [path or old for path, old in zip(new, before, strict=True)]
        self.outdated += tuple(Path(old).name for path, old in zip(new, before, strict=True)
                               if path and old and path != old)  # fmt: skip
        step = self._step(runner)
        if last and (any(new) or Path(last).name == self.filename_tmpl.format(step)):
            self._save_checkpoint_with_step(
                runner, step, dict(epoch=runner.epoch, iter=runner.iter)
            )
        else:
            self._remove_outdated()

    def save_extra(self, runner: Runner) -> None:
        """Save a checkpoint between two regular ones, the next of which takes its place."""
        name = self.filename_tmpl.format(runner.iter + 1)
        if self.last_ckpt and Path(self.last_ckpt).name == name:
            return
        self.extra = name
        self._write(runner, name, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            kept = [*self.keep_ckpt_ids, step]
            self.outdated += tuple(map(self.filename_tmpl.format, kept[: -self.max_keep_ckpts]))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        if self.extra and self.extra != name:
            self.outdated += (self.extra,)
            self.extra = None
        self._write(runner, name, meta)
        self._remove_outdated()

    def _write(self, runner: Runner, name: str, meta: dict) -> None:
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        for key, value in (('last_ckpt', self.last_ckpt), (OUTDATED, list(self.outdated)),
                           (EXTRA, self.extra)):  # fmt: skip
            runner.message_hub.update_info(key, value)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            write_text(Path(runner.work_dir) / 'last_checkpoint', str(self.last_ckpt))

    def _remove_outdated(self) -> None:
        if is_main_process():
            for name in self.outdated:
                path = self.file_backend.join_path(self.out_dir, name)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
        self.outdated = ()

    @property
    def best(self) -> list[str | None]:
        """The best checkpoint by each metric of ``save_best``."""
        if not self.save_best:
            return []
        several = getattr(self, 'best_ckpt_path_dict', None)
        return [self.best_ckpt_path] if several is None else list(several.values())

    @best.setter
    def best(self, paths: list[str | None]) -> None:
        if not self.save_best:
            return
        if hasattr(self, 'best_ckpt_path_dict'):
            keys = self.best_ckpt_path_dict
            self.best_ckpt_path_dict = dict(zip(keys, paths, strict=True))
        else:
            (self.best_ckpt_path,) = paths

    def _moved(self, path: str | None) -> str | None:
        """Where a checkpoint of the run that is resumed lies now."""
        return path and self.file_backend.join_path(self.out_dir, Path(path).name)

    def _step(self, runner: Runner) -> int:
        return runner.epoch if self.by_epoch else runner.iter
