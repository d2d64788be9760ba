"""What has to say the same in several files."""

import re
import runpy

from factory import ROOT
from mmengine.fileio import load

from mmseg_adm import __version__


def test_one_version():
    (cited,) = re.findall(r'^version: (.+)$', (ROOT / 'CITATION.cff').read_text(), re.MULTILINE)
    assert cited == __version__
    assert f'## {__version__}' in (ROOT / 'CHANGELOG.md').read_text()


def test_a_bug_report_asks_for_what_info_prints():
    form = load(ROOT / '.github/ISSUE_TEMPLATE/bug.yml')
    asked = {field['id']: field for field in form['body']}
    assert 'mmseg-adm info' in asked['info']['attributes']['label']
    assert asked['info']['validations']['required']


def test_the_site_is_made_with_what_the_extra_names(monkeypatch):
    """Make installs it without the package, which would bring PyTorch."""
    given = {}
    monkeypatch.setattr('setuptools.setup', lambda **options: given.update(options))
    runpy.run_path(str(ROOT / 'setup.py'))
    makefile = (ROOT / 'Makefile').read_text()
    (installed,) = re.findall(r'VENV_DOCS\)/bin/python -m pip install -c \S+ \\\n\s+(.+)', makefile)
    assert installed.split() == given['extras_require']['docs']
    pinned = (ROOT / 'constraints.txt').read_text()
    wanted = {each for extra in ('docs', 'test', 'tensorboard', 'onnx', 'benchmark')
              for each in given['extras_require'][extra]}  # fmt: skip
    assert not [each for each in wanted if f'\n{each}==' not in pinned]
