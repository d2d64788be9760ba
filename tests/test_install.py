"""README's ways into an environment, and what is said where there is none."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from factory import ROOT

# What somebody has in whose environment MMSegmentation runs.
STACK = ['torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmsegmentation', 'ftfy', 'regex']
NETWORK = 'mmseg_adm::pspnet/pspnet_r18-{}-d8_1xb8-demo_synthetic-city-96x128.py'


def readme_line() -> str:
    """The command that adds the package to an environment."""
    page = (ROOT / 'README.md').read_text()
    block = re.search(r'\*\*Into an environment that has MMSegmentation\*\*.*?```bash\n(.*?)```',
                      page, re.DOTALL)  # fmt: skip
    line, check = block[1].splitlines()
    assert check == 'mmseg-adm info'
    return line


@pytest.mark.skipif(not shutil.which('make'), reason='there is no make')
@pytest.mark.parametrize('version', [(3, 9, 18), (3, 14, 0)], ids=str)
def test_make_names_the_reason(version, tmp_path):
    (wanted,) = re.findall(r"python_requires='(.*?)'", (ROOT / 'setup.py').read_text())
    assert wanted == '>=3.10,<3.14'
    other = tmp_path / 'python'
    code = (f'import sys; sys.version_info = {version}; sys.version = "other"; '
            'exec(sys.argv[2])')  # fmt: skip
    other.write_text(f'#!/bin/sh\nexec {sys.executable} -c \'{code}\' "$@"\n')
    other.chmod(0o755)
    made = subprocess.run(
        ['make', 'test', f'PYTHON={other}', f'VENV={tmp_path}/venv'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode != 0
    assert f'needs Python 3.10 to 3.13, and {other} is other.' in made.stderr
    assert not (tmp_path / 'venv').exists()


class Environment:
    """A virtual environment of its own, and an empty folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / 'venv' / 'bin'
        subprocess.run([sys.executable, '-m', 'venv', folder / 'venv'], check=True)

    def __call__(self, command: str, cwd: Path | None = None) -> str:
        own = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
        path = f'{self.bin}{os.pathsep}{own["PATH"]}'
        data = str(self.folder / 'city')
        done = subprocess.run(
            command, shell=True, cwd=cwd or self.folder, check=False, text=True,
            capture_output=True,
            env=own | {'PATH': path, 'OMP_NUM_THREADS': '1', 'SYNTHETIC_CITY_ROOT': data,
                       'PIP_DISABLE_PIP_VERSION_CHECK': '1'},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout


@pytest.mark.slow
def test_a_package_beside_what_is_there(tmp_path):
    environment = Environment(tmp_path)
    environment(f'pip install -q -c {ROOT}/constraints.txt {" ".join(STACK)}')
    before = environment('pip freeze').splitlines()

    clone = tmp_path / 'clone'
    ignored = shutil.ignore_patterns('.*', '*.egg-info', 'build', 'work_dirs')
    shutil.copytree(ROOT, clone, ignore=ignored)
    environment(readme_line(), cwd=clone)
    after = environment('pip freeze').splitlines()
    assert [line for line in after if not line.startswith('mmseg_adm @')] == before
    assert len(after) == len(before) + 1
    assert 'OpenMMLab stack: onedl\n' in environment('mmseg-adm info')

    environment('python -m mmseg_adm.datasets.synthetic_city city --num-train 8 --num-val 2')
    student, teacher = NETWORK.format('w16'), NETWORK.format('w32')
    loaders = ' '.join(
        f'{split}_dataloader.num_workers=0 {split}_dataloader.persistent_workers=False'
        for split in ('train', 'val', 'test')
    )
    environment(
        f'mmseg-adm train --student {student} --teacher {teacher} --method adm --work-dir run '
        f'--cfg-options {loaders} train_cfg.max_iters=6 train_cfg.val_interval=6 '
        'train_dataloader.batch_size=2 param_scheduler.0.end=6 default_hooks.logger.interval=1'
    )
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert len(re.findall(r'Iter\(train\) \[', log.read_text())) == 6
    (config,) = (tmp_path / 'run').glob('adm_*.py')
    environment(f'mmseg-adm export {config} run/iter_6.pth')
    exported = tmp_path / 'run' / 'export' / 'student_iter_6.pth'
    assert exported.is_file()
    # The student runs where the package is not.
    environment('pip uninstall -q -y mmseg_adm')
    printed = environment(
        'python -c "from mmseg.apis import init_model; import sys; '
        "model = init_model(sys.argv[1], sys.argv[2], device='cpu'); "
        "print(type(model).__name__, 'mmseg_adm' in sys.modules)\" "
        f'{exported.with_suffix(".py")} {exported}'
    )
    # onedl's mmseg prints a line of its own.
    assert printed.splitlines()[-1] == 'EncoderDecoder False'
