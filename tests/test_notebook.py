"""The notebook: small, without traces of the machine that made it, and it runs."""

import json
import re

import pytest
from factory import ROOT

PATH = ROOT / 'docs' / 'quickstart.ipynb'
LIMIT = 200_000  # bytes: what it draws is committed with it


def test_it_is_small_and_tells_nothing_of_a_machine():
    text = PATH.read_text()
    assert len(text.encode()) <= LIMIT
    assert not re.search(r'/(home|root|tmp|work|Users)/', text)
    kinds = [output['output_type'] for cell in json.loads(text)['cells']
             for output in cell.get('outputs', [])]  # fmt: skip
    assert kinds.count('display_data') >= 2
    assert 'error' not in kinds


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip('nbclient', reason='nbclient and ipykernel are in [test]')
    nbformat = pytest.importorskip('nbformat')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    notebook = nbformat.read(PATH, as_version=4)
    for cell in notebook.cells:
        # Shorter trainings; their files are called by it.
        for given, here in ((200, 80), (100, 40)):
            for use in ('options({})', 'iter_{}'):
                cell.source = cell.source.replace(use.format(given), use.format(here))
    resources = {'metadata': {'path': str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=1800, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    printed = ''.join(output.get('text', '') for output in outputs)
    scores = dict(re.findall(r'^(\w.*?) +([\d.]+) mIoU$', printed, re.MULTILINE))
    assert list(scores) == ['student alone', 'student with its teacher', 'teacher']
    assert all(0 < float(score) <= 100 for score in scores.values())
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 2
    (student,) = tmp_path.glob('runs/distilled/export/student_*.pth')
    assert student.with_suffix('.py').is_file()
