"""The table of ``methods.md``, made of the methods' cards: ``python docs/method_table.py``."""

from __future__ import annotations

import ast
from pathlib import Path

from mmengine.fileio import load

from mmseg_adm.config import recipe_of, recipes, wants_trained_teacher

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'methods.md'
BEGIN, END = '<!-- from the cards: python docs/method_table.py -->\n', '<!-- end -->\n'
COLUMNS = ('`--method`', 'what it does', 'paper', 'teacher', 'reads', 'extra parameters',
           'measured')  # fmt: skip


def table() -> str:
    """A row a recipe of ``configs/_base_/methods``; what the card of its paper says of it."""
    recipes = (ROOT / 'configs/_base_/methods').glob('*.py')
    rows = [_row(path) for path in sorted(recipes, key=lambda path: path.stem)]
    lines = [COLUMNS, ('---',) * len(COLUMNS), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _row(recipe: Path) -> tuple[str, ...]:
    folder = recipe.stem.replace('-', '_')
    if not (ROOT / 'configs' / folder).is_dir():
        folder = folder.partition('_')[0]
    metafile = load(ROOT / 'configs' / folder / 'metafile.yml')
    (card,) = metafile['Collections']
    facts = card['Metadata']
    return (
        f'[`{recipe.stem}`](../configs/{folder}/README.md)',
        (ast.get_docstring(ast.parse(recipe.read_text())) or '').rstrip('.'),
        _paper(card),
        _teacher(recipe.stem),
        facts['Reads'],
        facts['Extra Parameters'],
        _measured(metafile['Models'], recipe.stem),
    )  # fmt: skip


def _paper(card: dict) -> str:
    if 'Paper' not in card:
        return 'ours'
    address = card['Paper']['URL']
    _, arxiv, number = address.partition('arxiv.org/abs/')
    return f'[{number if arxiv else "PDF"}]({address})'


def _teacher(method: str) -> str:
    if method not in recipes():
        return 'none'
    recipe = recipe_of(method)
    if recipe.model.members.teacher.get('frozen'):
        return 'trained before, frozen'
    return 'trained before, goes on' if wants_trained_teacher(recipe) else 'trains beside'


def _measured(models: list[dict], method: str) -> str:
    """The student's mIoU by data set, of this recipe's configs."""
    own = [model for model in models if model['Name'].partition('_')[0] == method]
    return ', '.join(
        f'{model["Results"]["Dataset"]} {model["Results"]["Metrics"]["mIoU"]:.2f}' for model in own
    ) or 'not run'  # fmt: skip


def main() -> None:
    """Write it into its page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f'{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}')


if __name__ == '__main__':
    main()
