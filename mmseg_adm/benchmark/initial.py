"""The weights from which all cells of a pair and seed start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.registry import MODELS, init_default_scope

from mmseg_adm.checkpoint import (
    install_safe_loading,
    local_path,
    member_weights,
    read_checkpoint,
    save_checkpoint,
)
from mmseg_adm.config import is_bridge

from .plan import Cell, Plan
from .settings import STUDENT, TEACHER


def initial_weights(plan: Plan, cell: Cell, folder: Path) -> dict[str, object]:
    """Overrides that start a cell's networks as every other cell of its pair and seed does.

    The weights of student and teacher are drawn once per pair and seed, or taken from where their
    configs say, and written into ``folder``. Other members (FFSD's peers, a bridge) draw their own.
    """

    def drawn(network: str) -> str:
        alone = plan.alone(cell, network)
        path = folder / f'{network}_{cell.seed}_{alone.settings}.pth'
        if not path.is_file():
            _draw(alone, path)
        return str(path)

    config = cell.row.resolved()
    if cell.row.network:
        # What it names is in what is drawn.
        loaded: dict[str, object] = {'load_from': None} if config.get('load_from') else {}
        return loaded | {
            'model.init_cfg.type': 'Pretrained',
            'model.init_cfg.checkpoint': drawn(cell.row.network),
        }
    student = config.model.get('student', STUDENT)
    return {
        f'model.members.{member}.checkpoint': drawn(STUDENT if member == student else TEACHER)
        for member, settings in config.model.members.items()
        if member in (student, TEACHER)
        and member not in cell.row.teachers
        and not is_bridge(settings)
    }


def _draw(cell: Cell, path: Path) -> None:
    config = cell.row.resolved()
    init_default_scope('mmseg')
    install_safe_loading()
    with torch.random.fork_rng():
        torch.manual_seed(cell.seed)
        network: Any = MODELS.build(config.model)
        network.init_weights()
    if source := config.get('load_from'):
        found = read_checkpoint(local_path(source))
        weights = member_weights(found, network, cell.row.network, f"the checkpoint '{source}'")
        network.load_state_dict(weights.state_dict, strict=False)
    save_checkpoint(path, {'state_dict': network.state_dict(), 'meta': {}})
