"""What to do after a training has come upon something that is not finite."""

from __future__ import annotations

from pathlib import Path

from mmengine.runner import Runner


def way_back(runner: Runner) -> str:
    """From which checkpoint to go on, and how to look at every step from there."""
    last = _last_checkpoint(Path(runner.work_dir))
    if last is not None:
        start = f'The last checkpoint, {last}, is whole and finite: go on from it with --resume'
    else:
        start = 'No checkpoint was saved before: start again'
    return (
        f'{start}. To look at all weights after every step: --cfg-options '
        'default_hooks.finite_weights.interval=1 default_hooks.logger.interval=1. Usual causes: '
        'a learning rate that is too high, images with NaN, float16 without loss scaling'
    )


def _last_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint of a work dir; each was looked at before it was written."""
    pointer = folder / 'last_checkpoint'
    # The pointer in a copied work dir leads to the original.
    path = folder / Path(pointer.read_text().strip()).name if pointer.is_file() else pointer
    return path if path.suffix and path.is_file() else None
