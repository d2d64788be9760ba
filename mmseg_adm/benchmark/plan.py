"""A plan: which networks and methods are trained, on which schedule and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmseg_adm.checkpoint import save_checkpoint
from mmseg_adm.config import (
    is_bridge,
    is_distillation_config,
    read_config,
    recipe_of,
    recipes,
    resolve_config,
    wants_trained_teacher,
)
from mmseg_adm.config import pair as make_pair

from .settings import SOME_CHECKPOINT, STUDENT, TEACHER, settings_hash

PAIR_KEYS = (STUDENT, TEACHER, 'methods', 'seeds')
ENTRY_KEYS = ('config', 'cfg_options', 'seeds', 'trained_teacher')


@dataclass(frozen=True)
class Cell:
    """One training: a network alone, or a method, with one seed.

    Attributes:
        pair: The networks' name in the plan.
        name: ``'student'`` and ``'teacher'`` are those networks alone.
        seed: Of initial weights, data order and all else.
        source: What trains, as arguments of the command ``train``: a config, or two and a method.
        options: Overrides, as ``--cfg-options`` takes them.
        teachers: Members that start from the teacher of the same seed, trained alone.
        settings: A hash of all settings: results of other settings are not the cell's.
    """

    pair: str
    name: str
    seed: int
    source: tuple[str, ...]
    options: tuple[tuple[str, object], ...]
    teachers: tuple[str, ...]
    settings: str

    @property
    def key(self) -> str:
        """What the cell is called in results and folders."""
        return f'{self.pair}/{self.name}/{self.seed}'

    def resolved(self) -> Config:
        """The config with the plan's overrides."""
        return _resolved(self.source, dict(self.options))


@dataclass(frozen=True)
class Plan:
    """All cells, in the order in which they run: what a cell needs comes before it.

    Attributes:
        name: The plan file's.
        cells: Of all pairs and seeds.
        processes: Of each training, one a GPU; without GPUs they share the cores.
    """

    name: str
    cells: tuple[Cell, ...]
    processes: int = 1

    @property
    def pairs(self) -> tuple[str, ...]:
        """Names of the pairs of networks."""
        return tuple(dict.fromkeys(cell.pair for cell in self.cells))

    def names(self, pair: str) -> tuple[str, ...]:
        """Names of a pair's cells."""
        return tuple(dict.fromkeys(cell.name for cell in self.cells if cell.pair == pair))

    @property
    def seeds(self) -> tuple[int, ...]:
        """All seeds."""
        return tuple(dict.fromkeys(cell.seed for cell in self.cells))


def read_plan(path: str | Path, processes: int = 1) -> Plan:
    """Read a plan file.

    It holds ``seeds``; ``cfg_options`` for all cells; and ``pairs``, by name: ``student`` and
    ``teacher``, the configs that train them alone, and ``methods``, by name a config, or one of
    :func:`mmseg_adm.config.recipes` by which those two are paired, or ``dict(config=...,
    cfg_options=..., trained_teacher=True)`` with either, in which a teacher in training starts
    from the one that was trained alone. A pair or a method may have ``seeds``, some of the
    plan's: a trial may do with one. Configs are paths, relative to the folder of the plan or to
    the nearest one above it that has them, or names (``mmseg::...``, ``mmseg_adm::...``).

    Args:
        path: The plan file.
        processes: Of each training. The batch size is that of one process, so results with
            another number are not the cell's.

    Raises:
        FileNotFoundError: If the plan or a config is not there.
        ValueError: If something in it is missing or unknown.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f'plan not found: {path}')
    plan = read_config(path)
    expected: dict[str, tuple] = {
        'seeds': ((list, tuple), '(0, 1, 2)'),
        'pairs': (Mapping, 'dict(NAME=dict(student=..., teacher=...))'),
    }
    for key, (kind, example) in expected.items():
        if not plan.get(key):
            raise ValueError(f'the plan {path} names no {key}: {key} = {example}')
        if not isinstance(plan[key], kind):
            raise ValueError(f'the plan {path}: expected {key} = {example}, got {plan[key]!r}')
    options = plan.get('cfg_options', {})
    if not isinstance(options, Mapping):
        raise ValueError(f'the plan {path}: cfg_options must be a dict by key, got {options!r}')
    cells = [
        cell
        for seed in plan.seeds
        for pair, entries in plan.pairs.items()
        if seed in _seeds(f"pair '{pair}'", _as_pair(pair, entries), plan.seeds)
        for cell in _cells(plan, path.parent, pair, seed, processes)
    ]
    return Plan(path.stem, tuple(cells), processes)


def _as_pair(name: str, entries: object) -> Mapping:
    if not isinstance(entries, Mapping):
        raise ValueError(
            f"pair '{name}' must be a dict of student, teacher and methods, got {entries!r}"
        )
    return entries


def _cells(plan: Config, folder: Path, pair: str, seed: int, processes: int) -> list[Cell]:
    """One pair's cells with one seed."""
    entries = plan.pairs[pair]
    if unknown := set(entries) - set(PAIR_KEYS):
        raise ValueError(
            f"pair '{pair}' has no {', '.join(sorted(unknown))}: it may have {', '.join(PAIR_KEYS)}"
        )
    if not isinstance(entries.get('methods', {}), Mapping):
        raise ValueError(
            f"pair '{pair}': methods must be a dict by name, such as methods=dict(adm='adm'), got "
            f'{entries.methods!r}'
        )
    for name in (STUDENT, TEACHER):
        if name not in entries:
            raise ValueError(f"pair '{pair}' names no {name}")
    alone = {name: _entry(f'{pair}/{name}', entries[name]) for name in (STUDENT, TEACHER)}
    for name, entry in alone.items():
        if only := set(entry) & {'seeds', 'trained_teacher'}:
            raise ValueError(f"cell '{pair}/{name}' is a network alone: no {', '.join(only)}")
    sources = {name: _source(folder, f'{pair}/{name}', entry) for name, entry in alone.items()}
    cells: list[Cell] = []
    for name, given in (alone | entries.get('methods', {})).items():
        entry = _entry(f'{pair}/{name}', given)
        if seed not in _seeds(f"cell '{pair}/{name}'", entry, plan.seeds):
            continue
        source = _source(folder, f'{pair}/{name}', entry, sources)
        options = {**plan.get('cfg_options', {}), 'randomness.seed': seed}
        options |= _options(f'{pair}/{name}', entry)
        teacher = next((each.settings for each in cells if each.name == TEACHER), None)
        cells.append(_cell((pair, name, seed), source, options, entry, processes, teacher))
    return cells


def _entry(name: str, entry: str | Mapping) -> Mapping:
    entry = dict(config=entry) if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"cell '{name}' must be a config, or dict(config=..., cfg_options=...), got {entry!r}"
        )
    if unknown := set(entry) - set(ENTRY_KEYS):
        raise ValueError(
            f"cell '{name}' has no {', '.join(sorted(unknown))}: it may have "
            f'{", ".join(ENTRY_KEYS)}'
        )
    if 'config' not in entry:
        raise ValueError(f"cell '{name}' names no config")
    return entry


def _options(name: str, entry: Mapping) -> Mapping:
    options = entry.get('cfg_options', {})
    if not isinstance(options, Mapping):
        raise ValueError(f"cell '{name}': cfg_options must be a dict by key, got {options!r}")
    return options


def _seeds(name: str, entry: Mapping, every: Sequence[int]) -> Sequence[int]:
    own = entry.get('seeds', every)
    if not isinstance(own, (list, tuple)) or not own:
        raise ValueError(f'{name}: seeds must be a list of some of {every}, got {own!r}')
    if unknown := set(own) - set(every):
        raise ValueError(f'{name}: the plan has no seeds {sorted(unknown)}: {every}')
    return own


def _source(
    folder: Path, name: str, entry: Mapping, alone: Mapping[str, tuple[str, ...]] | None = None
) -> tuple[str, ...]:
    config = entry['config']
    if alone and config in recipes():
        pair_flags = [f'--{member}={path}' for member, (path,) in alone.items()]
        return (*pair_flags, f'--method={config}')
    if '::' in config:
        return (config,)
    for base in (folder, *folder.parents):
        if (base / config).is_file():
            return (str(base / config),)
    raise FileNotFoundError(
        f"cell '{name}': config not found: {config}, sought in {folder} and the folders above it"
    )


def _cell(
    key: tuple[str, str, int],
    source: tuple[str, ...],
    options: Mapping[str, object],
    entry: Mapping,
    processes: int,
    teacher: str | None,
) -> Cell:
    pair, name, seed = key
    resolved = _resolved(source, options)
    members = resolved.model.get('members') or {}
    teachers = [member for member, settings in members.items() if settings.get('frozen')]
    if goes_on := _goes_on(source, entry):
        if TEACHER not in members or TEACHER in teachers:
            raise ValueError(f"cell '{pair}/{name}': trained_teacher is for a teacher that trains")
        teachers.append(TEACHER)
    settings = settings_hash(resolved, processes, teacher if teachers else None, goes_on)
    return Cell(pair, name, seed, source, tuple(options.items()), tuple(teachers), settings)


def _goes_on(source: tuple[str, ...], entry: Mapping) -> bool:
    """Whether a teacher in training starts from the one that was trained alone."""
    if entry.get('trained_teacher'):
        return True
    *_, last = source
    config = _read(source) if len(source) == 1 else recipe_of(last.removeprefix('--method='))
    if not is_distillation_config(config) or not wants_trained_teacher(config):
        return False
    return not config.model.members[TEACHER].get('frozen')


def _resolved(source: tuple[str, ...], options: Mapping[str, object]) -> Config:
    return resolve_config(_read(source), options)


@lru_cache
def _read(source: tuple[str, ...]) -> Config:
    if len(source) == 1:
        return read_config(source[0])
    student, teacher, method = (flag.partition('=')[2] for flag in source)
    # Where the teacher's weights lie is known when the cell runs.
    return make_pair(student, teacher, method, teacher_checkpoint=SOME_CHECKPOINT)


def initial_weights(plan: Plan, cell: Cell, folder: Path) -> dict[str, object]:
    """Overrides that start a cell's networks as every other cell of its pair and seed does.

    The weights of student and teacher are drawn once per pair and seed, and written into
    ``folder``. Other members (FFSD's peers, a bridge) draw their own.
    """
    alone = {each.name: each for each in plan.cells
             if (each.pair, each.seed) == (cell.pair, cell.seed)}  # fmt: skip

    def drawn(name: str) -> str:
        path = folder / f'{cell.pair}_{name}_{cell.seed}_{alone[name].settings}.pth'
        if not path.is_file():
            _draw(alone[name], path)
        return str(path)

    config = cell.resolved()
    if not is_distillation_config(config):
        return {'model.init_cfg.type': 'Pretrained', 'model.init_cfg.checkpoint': drawn(cell.name)}
    student = config.model.get('student', STUDENT)
    return {
        f'model.members.{member}.checkpoint': drawn(STUDENT if member == student else TEACHER)
        for member, settings in config.model.members.items()
        if member in (student, TEACHER) and member not in cell.teachers and not is_bridge(settings)
    }


def _draw(cell: Cell, path: Path) -> None:
    config = cell.resolved()
    init_default_scope('mmseg')
    with torch.random.fork_rng():
        torch.manual_seed(cell.seed)
        network = MODELS.build(config.model)
        network.init_weights()
    save_checkpoint(path, {'state_dict': network.state_dict(), 'meta': {}})
