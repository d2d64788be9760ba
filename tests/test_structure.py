import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from mmengine import load

from mmseg_adm.models import losses
from mmseg_adm.models import methods as methods_package

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmseg_adm'
MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted(PACKAGE.rglob('*.py'))
}
METHODS = [name for name in methods_package.__all__ if not name.endswith('Method')]
HEADINGS = ('How to use', 'Settings', 'Differences from the paper', 'Cost', 'Results')
MODELS = 'mmseg_adm.models'
# From the bottom up; a room imports from those below it, and from its own.
FLOORS = (
    ('mistakes', 'paths', 'registry', 'stack', 'tables', 'writing'),
    ('checkpoint',),
    ('config',),
    ('models.losses', 'models.shared', 'models.taps'),
    ('models.adapters', 'models.own_cross_entropy', 'models.step'),
    ('models.methods',),
    ('models',),
    ('datasets',),
    ('export',),
    ('preflight',),
    ('engine',),
    ('benchmark',),
    ('commands',),
    ('',),
)
# What pure code may import beside the standard library.
ALLOWED = {
    f'{MODELS}.losses': ('torch', f'{MODELS}.losses'),
    f'{MODELS}.shared': ('torch',),
    f'{MODELS}.taps': ('torch', f'{MODELS}.shared'),
    f'{MODELS}.adapters': ('torch', f'{MODELS}.losses'),
    'mmseg_adm.stack': ('packaging',),
    'mmseg_adm.paths': (),
    'mmseg_adm.mistakes': (),
}


def imports_of(name: str, path: Path, source: str | None = None) -> set[str]:
    """Absolute names of all that a file imports, also inside functions."""
    package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text() if source is None else source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = '.'.join([*start, *filter(None, [node.module])])
            found.update(f'{base}.{alias.name}' for alias in node.names)
    return found


def lies_in(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f'{package}.') for package in packages)


def test_imports_are_read_as_python_reads_them():
    source = 'import torch.nn as nn\nfrom . import a\nfrom ..b import c\ndef f():\n from d import e'
    expected = {'torch.nn', 'mmseg_adm.models.a', 'mmseg_adm.b.c', 'd.e'}
    assert imports_of('mmseg_adm.models.x', Path('x.py'), source) == expected
    inside = imports_of('mmseg_adm.models', Path('__init__.py'), 'from .x import y')
    assert inside == {'mmseg_adm.models.x.y'}


def floor_of(name: str) -> int:
    """How high a module lies: the floor of the longest room that it is in."""
    rooms = {
        '.'.join(filter(None, ['mmseg_adm', room])): floor
        for floor, names in enumerate(FLOORS)
        for room in names
    }
    return rooms[max((room for room in rooms if lies_in(name, room)), key=len)]


@pytest.mark.parametrize('name', MODULES)
def test_imports_run_downwards(name):
    found = imports_of(name, MODULES[name])
    own = [each for each in found if lies_in(each, 'mmseg_adm') and '__version__' not in each]
    assert not [each for each in own if floor_of(each) > floor_of(name)]
    assert not [each for each in found if lies_in(each, 'tools', 'tests', 'configs')]


@pytest.mark.parametrize('importer', ALLOWED)
def test_pure_code_stays_pure(importer):
    names = [name for name in MODULES if lies_in(name, importer)]
    assert names
    wrong = [
        f'{name} imports {imported}'
        for name in names
        for imported in imports_of(name, MODULES[name])
        if imported.split('.')[0] not in sys.stdlib_module_names
        and not lies_in(imported, *ALLOWED[importer])
    ]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('path', sorted(ROOT.glob('tools/*.py')), ids=lambda path: path.name)
def test_tools_are_thin(path):
    imported = imports_of(f'tools.{path.stem}', path)
    assert any(lies_in(name, 'mmseg_adm') for name in imported)
    assert not [name for name in imported if lies_in(name, 'tools', 'tests')]


@cache
def documented_methods() -> dict[str, tuple[list[str], set[str]]]:
    """By class of the package: its bases, and which of its methods have a docstring."""
    return {
        node.name: (
            [base.id for base in node.bases if isinstance(base, ast.Name)],
            {child.name for child in node.body
             if isinstance(child, ast.FunctionDef) and ast.get_docstring(child)},
        )
        for path in MODULES.values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }  # fmt: skip


def undocumented(tree: ast.Module, classes: dict) -> list[str]:
    """Public functions, classes and methods without a docstring of their own or a base's."""

    def inherits(kind: str, method: str) -> bool:
        bases, documented = classes.get(kind, ([], set()))
        return method in documented or any(inherits(base, method) for base in bases)

    missing = [] if ast.get_docstring(tree) else ['the module']
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith('_'):
            continue
        if not ast.get_docstring(node):
            missing.append(node.name)
        if isinstance(node, ast.ClassDef):
            missing += [
                f'{node.name}.{child.name}'
                for child in node.body
                if isinstance(child, ast.FunctionDef)
                and not child.name.startswith('_')
                and not ast.get_docstring(child)
                and not inherits(node.name, child.name)
            ]
    return missing


def test_a_missing_docstring_is_found():
    source = '"""M."""\nclass A:\n "A."\n def f(self): pass\n def _g(self): pass\ndef h(): pass'
    assert undocumented(ast.parse(source), {}) == ['A.f', 'h']
    assert undocumented(ast.parse(source), {'A': (['B'], set()), 'B': ([], {'f'})}) == ['h']


@pytest.mark.parametrize('name', MODULES)
def test_what_is_public_has_a_docstring(name):
    missing = undocumented(ast.parse(MODULES[name].read_text()), documented_methods())
    assert not missing, f'{name} has no docstring for {", ".join(missing)}'


def test_every_method_file_is_exported():
    registered = {
        node.name
        for name, path in MODULES.items()
        if lies_in(name, f'{MODELS}.methods')
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any('register_module' in ast.unparse(each) for each in node.decorator_list)
    }
    assert registered == set(METHODS)


@pytest.mark.parametrize('method', METHODS)
def test_every_method_has_a_config_folder_with_a_card(method):
    folder = ROOT / 'configs' / method.lower()
    assert list(folder.glob(f'{method.lower()}_*.py')), f'no config of {method} in {folder}'
    card = folder / 'README.md'
    assert card.is_file(), f'no card: {card}'
    headings = re.findall('^## (.+)$', card.read_text(), re.MULTILINE)
    assert [heading for heading in headings if heading in HEADINGS] == list(HEADINGS)
    named = re.findall(r'configs/\S+?\.py', card.read_text())
    assert not [path for path in named if not (ROOT / path).is_file()]


def row_of(method: str) -> str:
    row = re.compile(rf'^\|\s*[*`]*\[?[*`]*{method}\b.*$', re.IGNORECASE | re.MULTILINE)
    found = row.search((ROOT / 'docs' / 'methods.md').read_text())
    assert found, f'no row of {method} in docs/methods.md'
    return found[0]


@pytest.mark.parametrize('method', METHODS)
def test_every_method_has_a_row_in_the_table(method):
    assert f'(../configs/{method.lower()}/README.md)' in row_of(method)


@pytest.mark.parametrize('method', METHODS)
def test_every_method_has_a_metafile_of_what_was_measured(method):
    folder = f'configs/{method.lower()}'
    metafile = load(ROOT / folder / 'metafile.yml')
    (collection,) = metafile['Collections']
    assert collection['Name'] == method
    assert collection['README'] == f'{folder}/README.md'
    card = ' '.join((ROOT / collection['README']).read_text().replace('\n> ', ' ').split())
    assert collection['Paper']['Title'] in card
    assert collection['Paper']['URL'] in row_of(method)
    for model in metafile['Models']:
        assert model['In Collection'] == method
        assert (ROOT / model['Config']).is_file() and (ROOT / model['Training Log']).is_file()
        assert len(model['Student SHA256']) == model['Results']['Metrics']['Seeds']


@pytest.mark.parametrize('name', losses.__all__)
def test_every_formula_is_listed(name):
    assert f'`{name}`' in (ROOT / 'docs' / 'losses.md').read_text()


PAGES = ('.', 'docs', 'benchmarks', 'configs/*')


@pytest.mark.parametrize(
    'page',
    sorted(path for folder in PAGES for path in ROOT.glob(f'{folder}/*.md')),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_links_lead_somewhere(page):
    links = re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]
