"""Reading a plan file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from mmengine.config import Config

from mmseg_adm.config import (
    iterations_of,
    options_for_length,
    read_config,
    recipe_of,
    recipes,
    wants_trained_teacher,
)
from mmseg_adm.config import pair as make_pair

from .cost import multiply_adds
from .plan import Pair, Plan, Row
from .settings import SOME_CHECKPOINT, STUDENT, TEACHER, settings_hash

PAIR_KEYS = (STUDENT, TEACHER, 'methods', 'seeds', 'budget', 'teacher_is_given')
ENTRY_KEYS = ('config', 'cfg_options', 'seeds', 'trained_teacher', 'iterations', 'fills_budget')
# Of a network alone: its training is the measure of all else.
ALONE_KEYS = ('config', 'cfg_options', 'iterations')


def read_plan(path: str | Path, processes: int = 1) -> Plan:
    """Read a plan file.

    It holds ``seeds``; ``cfg_options`` for all cells; and ``pairs``, by name:

    - ``student`` and ``teacher``: the configs that train them alone;
    - ``methods``: by name a config, or one of :func:`mmseg_adm.config.recipes` by which those two
      are paired, or ``'student'`` or ``'teacher'``, that network alone once more; or
      ``dict(config=..., ...)`` with any of these and ``cfg_options``; ``seeds``, some of the
      plan's; ``trained_teacher=True``, where a teacher in training starts from the one that was
      trained alone; ``iterations``, its length; ``fills_budget=True``, as long as the budget lets
      it;
    - ``budget``: the name of the row whose cost others fill, and ``teacher_is_given=True`` if the
      teacher's own training is nobody's cost;
    - ``seeds``: some of the plan's.

    Configs are paths, relative to the folder of the plan or to the nearest one above it that has
    them, or names (``mmseg::...``, ``mmseg_adm::...``). Modules beside the plan can be imported.

    Args:
        path: The plan file.
        processes: Of each training. The batch size is that of one process, so results with
            another number are not the cell's.

    Raises:
        FileNotFoundError: If the plan or a config is not there.
        ValueError: If something in it is missing, unknown, or impossible.
    """
    path = Path(path).resolve()
    if not path.is_file():
        raise FileNotFoundError(f'plan not found: {path}')
    with importing_from(path.parent):
        plan = read_config(path)
        _check_plan(path, plan)
        pairs = tuple(
            _PairReader(plan, path.parent, name, entries, processes).read()
            for name, entries in plan.pairs.items()
        )
    return Plan(path, pairs, tuple(plan.seeds), processes)


@contextmanager
def importing_from(folder: Path) -> Iterator[None]:
    """Find modules of one's own in a folder, after all others."""
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@dataclass
class _PairReader:
    plan: Config
    folder: Path
    name: str
    entries: Mapping
    processes: int

    def read(self) -> Pair:
        entries = self.entries
        if not isinstance(entries, Mapping):
            raise ValueError(
                f"pair '{self.name}' must be a dict of student, teacher and methods, got "
                f'{entries!r}'
            )
        _check_keys(f"pair '{self.name}'", entries, PAIR_KEYS)
        if not isinstance(entries.get('methods', {}), Mapping):
            raise ValueError(
                f"pair '{self.name}': methods must be a dict by name, such as "
                f"methods=dict(adm='adm'), got {entries['methods']!r}"
            )
        for name in (STUDENT, TEACHER):
            if name not in entries:
                raise ValueError(f"pair '{self.name}' names no {name}")
        self.seeds = _seeds(f"pair '{self.name}'", entries, self.plan.seeds)
        self.alone = {name: _entry(f'{self.name}/{name}', entries[name], ALONE_KEYS)
                      for name in (STUDENT, TEACHER)}  # fmt: skip
        self.sources = {name: self._path(f'{self.name}/{name}', entry['config'])
                        for name, entry in self.alone.items()}  # fmt: skip
        self.rows: dict[str, Row] = {}
        for name, entry in self.alone.items():
            self.rows[name] = self._row(name, {**entry, 'config': name})
        methods = {name: _entry(f'{self.name}/{name}', given, ENTRY_KEYS)
                   for name, given in entries.get('methods', {}).items()}  # fmt: skip
        for name in methods:
            if name in self.alone:
                raise ValueError(f"pair '{self.name}': a method cannot be called '{name}'")
        filling = {name for name, entry in methods.items() if entry.get('fills_budget')}
        for name in sorted(methods, key=filling.__contains__):
            self.rows[name] = self._row(name, methods[name])
        budget = entries.get('budget')
        given = bool(entries.get('teacher_is_given'))
        if budget or filling:
            self._fill(filling, budget, given)
        # In the order of the plan.
        rows = tuple(self.rows[name] for name in (*self.alone, *methods))
        return Pair(self.name, rows, budget, given)

    def _row(self, name: str, entry: Mapping) -> Row:
        key = f"cell '{self.name}/{name}'"
        network = entry['config'] if entry['config'] in self.alone else ''
        source = self._source(f'{self.name}/{name}', entry['config'])
        options = dict(self.plan.get('cfg_options', {}))
        if network:
            options |= self.alone[network].get('cfg_options', {})
        if len(source) > 1:
            options |= self._network_options(name)
        options |= entry.get('cfg_options', {})
        row = Row(
            pair=self.name,
            name=name,
            network=network,
            source=source,
            options=options,
            seeds=tuple(_seeds(key, entry, self.seeds)),
            teachers=(),
            frozen=(),
            settings='',
            iterations=0,
            imports=(),
            base=_read(source),
        )
        length = entry.get('iterations')
        # Of a pair, schedule and length are the student's.
        if length is None and (network or len(source) > 1):
            length = self.alone[network or STUDENT].get('iterations')
        return self._completed(row, bool(entry.get('trained_teacher')), length)

    def _network_options(self, name: str) -> dict[str, object]:
        """What the plan changes about the networks alone, for those of a pair.

        Raises:
            ValueError: If that is more than the networks.
        """
        options = {}
        for member, entry in self.alone.items():
            for key, value in entry.get('cfg_options', {}).items():
                if not key.startswith('model.') or key.startswith('model.data_preprocessor'):
                    raise ValueError(
                        f"cell '{self.name}/{name}' would not have {key} of its {member} alone: "
                        f'set it in {Path(self.sources[member]).name}, or in the cfg_options of '
                        'the plan'
                    )
                options[f'model.members.{member}.{key.removeprefix("model.")}'] = value
        return options

    def _completed(self, row: Row, trained_teacher: bool, length: int | None = None) -> Row:
        """The row with all that follows from its config, which is brought to a length."""
        key = f"cell '{row.key}'"
        config = row.resolved()
        try:
            _check_has(config, 'model', 'train_cfg')
            if length is not None:
                if not isinstance(length, int) or length < 1:
                    raise ValueError(f'iterations must be an integer >= 1, got {length!r}')
                options = {**row.options, **options_for_length(config, length)}
                row = replace(row, options=options)
                config = row.resolved()
            iterations = iterations_of(config)
            _check_has(config, 'train_dataloader', 'val_dataloader')
            _check_scored(config)
        except ValueError as error:
            raise ValueError(f'{key}: {error}') from None
        members = config.model.get('members') or {}
        frozen = tuple(name for name, member in members.items() if (member or {}).get('frozen'))
        goes_on = trained_teacher or _goes_on(row, frozen)
        if goes_on and (TEACHER not in members or TEACHER in frozen):
            raise ValueError(f'{key}: trained_teacher is for a teacher that trains')
        teachers = (*frozen, TEACHER) if goes_on else frozen
        return replace(
            row,
            teachers=teachers,
            frozen=frozen,
            settings=settings_hash(
                config, self.processes, self.rows[TEACHER].settings if teachers else None, goes_on
            ),
            iterations=iterations,
            imports=tuple(_names((config.get('custom_imports') or {}).get('imports'))),
        )

    def _fill(self, filling: set[str], budget: str | None, given: bool) -> None:
        """Bring rows to the length at which they cost what the budget's row does."""
        if not budget:
            raise ValueError(
                f"pair '{self.name}': {min(filling)} fills a budget, and there is none"
            )
        if budget not in self.rows or budget in filling:
            others = [name for name in self.rows if name not in filling]
            raise ValueError(
                f"pair '{self.name}': budget must be one of its rows that do not fill it, "
                f'{", ".join(others)}; got {budget!r}'
            )
        total = self._cost(self.rows[budget], given)
        for name in filling:
            row = self.rows[name]
            own = self._cost(row, given=True)
            left = total - (self._cost(row, given) - own)
            length = int(left * row.iterations // own)
            if length < 1:
                raise ValueError(
                    f"cell '{row.key}': the budget, {total:.3g} multiply-adds of '{budget}', "
                    f'leaves less than one iteration: {left:.3g}, and one takes '
                    f'{own / row.iterations:.3g}'
                )
            goes_on = len(row.teachers) > len(row.frozen)
            self.rows[name] = self._completed(row, goes_on, length)

    def _cost(self, row: Row, given: bool) -> float:
        """Multiply-adds of a row, its teacher's training included unless it is given."""
        cost = multiply_adds(row, self.processes)
        if cost is None:
            raise ValueError(
                f"cell '{row.key}': its multiply-adds cannot be counted, so it can neither be nor "
                'fill a budget: give it iterations, or a missing model.data_preprocessor.size'
            )
        if row.teachers and not given:
            return cost + self._cost(self.rows[TEACHER], given=True)
        return cost

    def _source(self, name: str, config: str) -> tuple[str, ...]:
        if config in self.alone:
            return (self.sources[config],)
        if config in recipes():
            flags = [f'--{member}={path}' for member, path in self.sources.items()]
            return (*flags, f'--method={config}')
        return (self._path(name, config),)

    def _path(self, name: str, config: str) -> str:
        if '::' in config:
            return config
        for base in (self.folder, *self.folder.parents):
            if (base / config).is_file():
                return str(base / config)
        if Path(config).name == config and not config.endswith('.py'):
            raise ValueError(
                f"cell '{name}': no method is called '{config}': {', '.join(recipes())}"
            )
        raise FileNotFoundError(
            f"cell '{name}': config not found: {config}, sought in {self.folder} and the folders "
            'above it'
        )


def _entry(name: str, entry: str | Mapping, keys: Sequence[str]) -> Mapping:
    entry = dict(config=entry) if isinstance(entry, str) else entry
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"cell '{name}' must be a config, or dict(config=..., cfg_options=...), got {entry!r}"
        )
    _check_keys(f"cell '{name}'", entry, keys)
    if not isinstance(entry.get('config'), str):
        raise ValueError(f"cell '{name}' names no config")
    options = entry.get('cfg_options', {})
    if not isinstance(options, Mapping):
        raise ValueError(f"cell '{name}': cfg_options must be a dict by key, got {options!r}")
    if entry.get('fills_budget') and 'iterations' in entry:
        raise ValueError(f"cell '{name}': iterations or fills_budget, not both")
    return entry


def _check_plan(path: Path, plan: Config) -> None:
    expected: dict[str, tuple] = {
        'seeds': ((list, tuple), '(0, 1, 2)'),
        'pairs': (Mapping, 'dict(NAME=dict(student=..., teacher=...))'),
    }
    for key, (kind, example) in expected.items():
        if not plan.get(key):
            raise ValueError(f'the plan {path} names no {key}: {key} = {example}')
        if not isinstance(plan[key], kind):
            raise ValueError(f'the plan {path}: expected {key} = {example}, got {plan[key]!r}')
    for key in ('budget', 'teacher_is_given', 'cfg_option'):
        if key in plan:
            where = 'is called cfg_options' if key == 'cfg_option' else 'belongs into a pair'
            raise ValueError(f'the plan {path}: {key} {where}')
    options = plan.get('cfg_options', {})
    if not isinstance(options, Mapping):
        raise ValueError(f'the plan {path}: cfg_options must be a dict by key, got {options!r}')


def _check_keys(name: str, given: Mapping, keys: Sequence[str]) -> None:
    if unknown := sorted(set(given) - set(keys)):
        raise ValueError(f'{name} has no {", ".join(unknown)}: it may have {", ".join(keys)}')


def _seeds(name: str, entry: Mapping, every: Sequence[int]) -> Sequence[int]:
    own = entry.get('seeds', every)
    if not isinstance(own, (list, tuple)) or not own:
        raise ValueError(f'{name}: seeds must be a list of some of {every}, got {own!r}')
    if unknown := set(own) - set(every):
        raise ValueError(f'{name}: the plan has no seeds {sorted(unknown)}: {every}')
    return own


def _check_has(config: Config, *keys: str) -> None:
    if missing := [key for key in keys if not config.get(key)]:
        raise ValueError(f'{config.filename} has no {", ".join(missing)}')


def _check_scored(config: Config) -> None:
    """Refuse a score that a table would not find.

    Raises:
        ValueError: If mIoU has a prefix.
    """
    evaluators = config.get('val_evaluator') or []
    for each in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if each.get('prefix') and str(each.get('type')).endswith('IoUMetric'):
            raise ValueError(
                f"val_evaluator has prefix='{each.prefix}': a table is of 'mIoU', without a prefix"
            )


def _goes_on(row: Row, frozen: Sequence[str]) -> bool:
    """Whether a teacher in training starts from the one that was trained alone."""
    *_, last = row.source
    own = recipe_of(last.removeprefix('--method=')) if len(row.source) > 1 else row.base
    members = own.model.get('members') or {}
    return TEACHER in members and TEACHER not in frozen and wants_trained_teacher(own)


def _names(imports: str | Sequence[str] | None) -> Sequence[str]:
    return [imports] if isinstance(imports, str) else imports or ()


def _read(source: tuple[str, ...]) -> Config:
    if len(source) == 1:
        return _config(source[0])
    student, teacher, method = (flag.partition('=')[2] for flag in source)
    # Where the teacher's weights lie is known when the cell runs.
    return make_pair(_config(student), _config(teacher), method, SOME_CHECKPOINT)


@lru_cache
def _config(path: str) -> Config:
    return read_config(path)
