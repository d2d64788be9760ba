import subprocess
import sys

import pytest
import torch
from factory import ROOT


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
