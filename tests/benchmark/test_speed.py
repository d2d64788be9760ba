import importlib.util
import subprocess
import sys

import pytest
import torch
from factory import ROOT
from mmengine.registry import MODELS, init_default_scope

from mmseg_adm.config import recipes


@pytest.mark.slow
def test_a_table_of_steps_and_a_line_on_validation():
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', ROOT / 'benchmarks/speed.py', '--rounds', '1', '--classes',
         '3', '--methods', 'dml', 'kd', '--pairs', 'pspnet-r18',
         'pspnet-r101-512x1024'][: None if not torch.cuda.is_available() else -1],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert 'pspnet-r18, 3 classes, float32' in lines
    rows = [line.strip('| ').split('|') for line in lines if line.startswith('| ')]
    assert [row[0].strip() for row in rows] == ['method', 'dml', 'kd']
    assert all(float(cell) > 0 for row in rows[1:] for cell in row[1:])
    (validation,) = (line for line in lines if line.startswith('Validation of both members: '))
    assert ' for 32 images, ' in validation
    if not torch.cuda.is_available():
        assert lines[-1] == 'pspnet-r101-512x1024: not measured, it needs a GPU'


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('mmrazor') is not None, reason='MMRazor is installed')
def test_without_mmrazor_its_row_is_refused():
    done = subprocess.run(
        [sys.executable, ROOT / 'benchmarks/speed.py', '--mmrazor'], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.endswith("speed.py: error: --mmrazor: No module named 'mmrazor'\n")


@pytest.mark.slow
def test_a_pair_can_be_built_with_each_method(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    spec = importlib.util.spec_from_file_location('speed', ROOT / 'benchmarks' / 'speed.py')
    speed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(speed)
    init_default_scope('mmseg')
    pair = speed.PAIRS['efficientnet-lite']
    for method in recipes():
        config = speed.paired(pair, speed.networks_of(pair, 3), method, str(tmp_path))
        MODELS.build(config.model)
        if method in ('sokd', 'cwd'):
            assert (speed.over_plain_networks(config) > 1.2) == (method == 'sokd')
