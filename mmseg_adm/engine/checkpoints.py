"""The checkpoints that a training's config says it saves."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config

from mmseg_adm.checkpoint import checkpoints_in, newest_whole


def checkpoint_files(config: Config) -> tuple[Path, str | None]:
    """Where a training saves its checkpoints, and the template of their names.

    The template is ``None`` if it saves none.
    """
    work_dir = Path(config.work_dir)
    hook = (config.get('default_hooks') or {}).get('checkpoint', {})
    if hook is None:
        return work_dir, None
    # As MMEngine has it.
    folder = Path(hook.out_dir) / work_dir.name if hook.get('out_dir') else work_dir
    default = 'epoch_{}.pth' if hook.get('by_epoch', True) else 'iter_{}.pth'
    return folder, hook.get('filename_tmpl') or default


def refuse_another_run(config: Config) -> None:
    """Refuse to start a training over the checkpoints of another one.

    Raises:
        ValueError: If there are any, with the two ways out.
    """
    folder, template = checkpoint_files(config)
    found = checkpoints_in(folder, template) if template else []
    if found:
        raise ValueError(
            f'{folder} holds the checkpoints of a training, {found[0].name} is the newest: go on '
            'with it by --resume, or choose another --work-dir'
        )


def newest_checkpoint(config: Config) -> Path | None:
    """The newest whole checkpoint of a training, if it has come to one."""
    folder, template = checkpoint_files(config)
    return newest_whole(folder, template).path if template else None
