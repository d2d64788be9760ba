"""The tables of ``methods.md``, made of the methods' cards: ``python docs/method_table.py``."""

from __future__ import annotations

import ast
from pathlib import Path

from mmengine.fileio import load

from mmseg_adm.config import recipe_of, recipes, wants_trained_teacher

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / 'docs' / 'methods.md'
BEGIN = '<!-- from the cards: python docs/method_table.py -->\n'
BEGIN_MEASURED = '<!-- measured, from the cards: python docs/method_table.py -->\n'
END = '<!-- end -->\n'
COLUMNS = ('`--method`', 'what it does', 'paper', 'teacher', 'reads', 'extra parameters')
MEASURED = ('`--method`', 'data, plan, raw lines', 'student', 'teacher alone, mIoU',
            'student alone, mIoU', 'distilled, mIoU', 'gain and 95 % interval', 'seeds',
            'parameters', 'GFLOPs', 'ms an image')  # fmt: skip


def table() -> str:
    """A row a recipe of ``configs/_base_/methods``; what the card of its paper says of it."""
    recipes = (ROOT / 'configs/_base_/methods').glob('*.py')
    rows = [_row(path) for path in sorted(recipes, key=lambda path: path.stem)]
    return _markdown(COLUMNS, rows)


def measured() -> str:
    """A row a model of the cards."""
    cards = sorted((ROOT / 'configs').glob('*/metafile.yml'))
    models = [(path.parent.name, model) for path in cards for model in load(path)['Models']]
    return _markdown(MEASURED, [_measured(folder, model) for folder, model in models])


def folder_of(recipe: str) -> str:
    """Where the card of a recipe's paper lies."""
    folder = recipe.replace('-', '_')
    return folder if (ROOT / 'configs' / folder).is_dir() else folder.partition('_')[0]


def _markdown(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ('---',) * len(columns), *rows]
    return ''.join(f'| {" | ".join(line)} |\n' for line in lines)


def _row(recipe: Path) -> tuple[str, ...]:
    folder = folder_of(recipe.stem)
    (card,) = load(ROOT / 'configs' / folder / 'metafile.yml')['Collections']
    facts = card['Metadata']
    return (
        f'[`{recipe.stem}`](../configs/{folder}/README.md)',
        (ast.get_docstring(ast.parse(recipe.read_text())) or '').rstrip('.'),
        _paper(card),
        _teacher(recipe.stem),
        facts['Reads'],
        facts['Extra Parameters'],
    )


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


def _measured(folder: str, model: dict) -> tuple[str, ...]:
    facts, scores = model['Metadata'], model['Results']['Metrics']
    low, high = scores['Interval']
    verdict = ': no difference found' if low <= 0 <= high else ''
    plan, lines = (f'[{word}](../{model[key]})'
                   for word, key in (('plan', 'Config'), ('lines', 'Training Log')))  # fmt: skip
    return (
        f'[`{model["Name"].partition("_")[0]}`](../configs/{folder}/README.md)',
        f'{model["Results"]["Dataset"]}, {plan}, {lines}',
        facts['Student'],
        f'{scores["Teacher Alone"]:.2f}' if 'Teacher Alone' in scores else '',
        f'{scores["Student Alone"]:.2f}',
        f'{scores["mIoU"]:.2f}',
        f'{scores["Gain"]:+.2f} ({low:+.2f} to {high:+.2f}{verdict})',
        f'{scores["Seeds"]}',
        f'{facts["Parameters (M)"]:.2f} M',
        'not known' if facts['GFLOPs'] is None else f'{facts["GFLOPs"]:.2f}',
        f'{facts["Inference Time (ms/im)"]:.0f}',
    )


def page() -> str:
    """The page, its tables made anew."""
    text = PAGE.read_text()
    for begin, made in ((BEGIN, table()), (BEGIN_MEASURED, measured())):
        before, _, rest = text.partition(begin)
        text = f'{before}{begin}{made}{END}{rest.partition(END)[2]}'
    return text


def main() -> None:
    """Write them into their page."""
    PAGE.write_text(page())


if __name__ == '__main__':
    main()
