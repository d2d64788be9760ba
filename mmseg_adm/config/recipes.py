"""How a method is set up: the files in ``configs/_base_/methods``.

Leaf configs and pairs share them. ``distillation`` is what the method decides about ``model``:
the members that it needs, what they are, and the methods. ``paramwise_cfg``, where it has one, goes
into ``optim_wrapper``. The file's docstring says in one line what the method is.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mmengine.config import Config

from mmseg_adm.paths import configs_of

from .kinds import learning_rate_factor
from .names import read_config

STUDENT, TEACHER = 'student', 'teacher'
TYPE = 'mmseg_adm.KnowledgeDistiller'
RUNTIME = 'mmseg_adm::_base_/default_runtime.py'


@cache
def recipes() -> Mapping[str, str]:
    """The methods that a student and a teacher can be paired by; of each one line."""
    paired = (name for name in _names() if TEACHER in _read(name).model.members)
    return {name: ast.get_docstring(ast.parse(_file(name).read_text())) or '' for name in paired}


def listed_recipes() -> str:
    """:func:`recipes`, a line each, for a message."""
    return '\n'.join(f'  {name:<14} {line}' for name, line in recipes().items())


def recipe_of(method: str | Mapping[str, Mapping]) -> Config:
    """What a method decides about a run: ``model``, ``optim_wrapper.paramwise_cfg``, hooks, loops.

    Args:
        method: One of :func:`recipes`; or methods of one's own by name, for a student and a
            teacher in training.

    Raises:
        ValueError: If no method is called so.
    """
    if not isinstance(method, str):
        recipe = read_config(RUNTIME)
        recipe.model = dict(type=TYPE, members={STUDENT: {}, TEACHER: {}}, methods=dict(method))
        return recipe
    if method in _names() and TEACHER in (recipe := _read(method)).model.members:
        return recipe
    others = ', '.join(name for name in _names() if name not in recipes())
    raise ValueError(
        f"no method is called '{method}'; a student and a teacher are paired by\n"
        f'{listed_recipes()}\nMethods that train others ({others}) have configs of their own'
    )


def wants_trained_teacher(config: Config) -> bool:
    """Whether the teacher of a distillation config, or of a recipe, has been trained before."""
    teacher = config.model.members.get(TEACHER)
    if not isinstance(teacher, Mapping):
        return False
    slowed = learning_rate_factor(config, TEACHER) < 1
    return bool(teacher.get('checkpoint') or teacher.get('frozen') or slowed)


def _folder() -> Path:
    return configs_of('mmseg_adm') / '_base_' / 'methods'


def _names() -> list[str]:
    return sorted(path.stem for path in _folder().glob('*.py'))


def _file(name: str) -> Path:
    return _folder() / f'{name}.py'


def _read(name: str) -> Config:
    return copy.deepcopy(_recipe(name))


@cache
def _recipe(name: str) -> Config:
    recipe = read_config(_file(name))
    recipe.model = dict(type=TYPE, **recipe.pop('distillation'))
    if 'paramwise_cfg' in recipe:
        recipe.optim_wrapper = dict(paramwise_cfg=recipe.pop('paramwise_cfg'))
    return recipe
