"""What has to say the same in several files."""

import re

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
