"""The site: it builds, says which link or reference leads nowhere, and its tables are today's."""

import re
import runpy
import shlex
import shutil
import subprocess
from operator import itemgetter
from pathlib import Path

import pytest
from factory import ROOT
from mmengine.fileio import load

from mmseg_adm.benchmark import read_plan
from mmseg_adm.commands.main import parse

SPHINX = ROOT / '.venv-docs' / 'bin' / 'sphinx-build'
SOURCES = ('docs', 'configs', 'benchmarks', 'mmseg_adm', 'CHANGELOG.md', 'CONTRIBUTING.md',
           'SECURITY.md')  # fmt: skip
PAGES = [
    path
    for folder in ('.', 'docs', 'benchmarks', 'configs/*')
    for path in sorted(ROOT.glob(f'{folder}/*.md'))
]

COSTS = ('Parameters (M)', 'Image Size', 'GFLOPs', 'Inference Time (ms/im)', 'Hardware')


def commands_of(text: str) -> list[str]:
    """The lines of ``bash`` blocks that start a command, joined where they go on."""
    blocks = '\n'.join(re.findall(r'```bash\n(.*?)```', text, re.DOTALL)).replace('\\\n', ' ')
    return re.findall(r'^(?:[A-Z_]+=\S+ )?mmseg-adm (.+)$', blocks, re.MULTILINE)


def test_commands_are_found_as_a_shell_reads_them():
    text = '```bash\n# no\nA=b mmseg-adm train x \\\n    --amp  # and so on\n```\nmmseg-adm nothing'
    (line,) = commands_of(text)
    assert shlex.split(line, comments=True) == ['train', 'x', '--amp']


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page):
    """Its flags exist; what it does is for the tests of the commands."""
    for line in commands_of(page.read_text()):
        args = parse(shlex.split(line, comments=True))
        config = getattr(args, 'config', None)
        if config and config.startswith(('configs/', 'mmseg_adm::')) and '...' not in config:
            assert (ROOT / 'configs' / config.removeprefix('configs/').removeprefix('mmseg_adm::')
                    ).is_file(), line  # fmt: skip


def test_the_method_tables_are_those_of_the_cards():
    made = runpy.run_path(str(ROOT / 'docs' / 'method_table.py'))
    assert made['PAGE'].read_text() == made['page'](), 'python docs/method_table.py writes it anew'


def test_the_cards_say_what_the_plans_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'docs')
    cards = runpy.run_path(str(ROOT / 'docs' / 'cards.py'))
    written = [model for path in ROOT.glob('configs/*/metafile.yml')
               for model in load(path)['Models']]  # fmt: skip
    assert written
    # What a network costs was measured on another day.
    monkeypatch.setitem(cards['entries_of'].__globals__, 'cost_of', lambda config: {})
    for plan in {model['Config'] for model in written}:
        found = [entry for entries in cards['entries_of'](read_plan(ROOT / plan)).values()
                 for entry in entries]  # fmt: skip
        told = [model for model in written if model['Config'] == plan]
        for model in told:
            assert all(model['Metadata'].pop(key) for key in COSTS)
        assert sorted(told, key=itemgetter('Name')) == sorted(found, key=itemgetter('Name'))


def test_the_messages_that_are_explained_are_those_of_the_code():
    page = (ROOT / 'docs' / 'troubleshooting.md').read_text()
    tables = re.findall(r'^\| message \|.*?\n\n', page, re.MULTILINE | re.DOTALL)
    messages = re.findall(r'^\| `(.+?)` \|', ''.join(tables), re.MULTILINE)
    assert len(messages) > 10
    # A message may go on in the next line of the code, and in another literal.
    source = ''.join(path.read_text() for path in (ROOT / 'mmseg_adm').rglob('*.py'))
    source = re.sub(r"""['"]\s+f?['"]""", '', source)
    words = {part.strip(' :') for message in messages for part in message.split('...')} - {''}
    assert not {part for part in words if part not in source}


def test_every_page_is_in_the_index():
    """Sphinx says so too, where it is installed."""
    index = (ROOT / 'docs' / 'index.md').read_text()
    trees = '\n'.join(re.findall(r'```{toctree}(.*?)```', index, re.DOTALL))
    listed = re.findall(r'^([\w./]+)$', trees, re.MULTILINE)
    pages = {path.stem for kind in ('md', 'ipynb') for path in (ROOT / 'docs').glob(f'*.{kind}')}
    assert pages - {'index'} <= set(listed)


def build(folder: Path) -> subprocess.CompletedProcess:
    if not SPHINX.is_file():
        pytest.skip(f'no {SPHINX}: `make docs` makes it')
    command = [
        SPHINX,
        '--fail-on-warning',
        '--keep-going',
        '--fresh-env',
        '-q',
        '-c',
        'docs',
        '.',
        'build/site',
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope='module')
def copied(tmp_path_factory):
    folder = tmp_path_factory.mktemp('site')
    ignored = shutil.ignore_patterns('__pycache__')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.mark.slow
def test_it_builds(copied):
    done = build(copied)
    assert done.returncode == 0, done.stderr
    site = copied / 'build' / 'site'
    assert 'docs/index.html' in (site / 'index.html').read_text()
    assert 'class="sig-name descname"' in (site / 'docs/reference/methods.html').read_text()
    assert (site / 'configs/cwd/README.html').is_file()
    # The notebook's pictures came with it.
    shown = (site / 'docs/quickstart.html').read_text()
    assert shown.count('<img') >= 2


@pytest.mark.slow
def test_what_leads_nowhere_fails_by_name(copied):
    page = copied / 'docs' / 'export.md'
    page.write_text(page.read_text() + '\n[a page](nowhere.md) [a heading](pairing.md#nowhere)\n')
    module = copied / 'mmseg_adm' / 'models' / 'losses' / 'pixel.py'
    named = module.read_text().replace('Hinton et al.', ':func:`mmseg_adm.nobody`, Hinton et al.')
    module.write_text(named)
    done = build(copied)
    assert done.returncode == 1
    for name in ('nowhere.md', "'nowhere'", 'mmseg_adm.nobody'):
        assert name in done.stderr
