"""The code in the documents is run."""

import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factory import ROOT, demo_config
from mmengine.runner import Runner

from mmseg_adm.config.names import read_config
from mmseg_adm.registry import MODELS

pytestmark = pytest.mark.core
FILE = re.compile(r'<!-- file: (\S+) -->\n```python\n(.*?)```', re.DOTALL)


def write_files(page: str, folder: Path) -> dict[str, Path]:
    """The files that a page shows, by name."""
    found = FILE.findall((ROOT / 'docs' / page).read_text())
    for name, text in found:
        (folder / name).write_text(text)
    return {name: folder / name for name, _ in found}


@pytest.fixture
def forget_method(monkeypatch):
    yield
    sys.modules.pop('confident_kd', None)
    MODELS.module_dict.pop('ConfidentKD', None)


def test_the_new_method_trains(city, tmp_path, monkeypatch, forget_method):
    files = write_files('new_method.md', tmp_path)
    assert len(files['confident_kd.py'].read_text().splitlines()) <= 20
    monkeypatch.syspath_prepend(tmp_path)
    read_config(files['my_config.py'])  # resolves the names in _base_
    runner = Runner.from_cfg(demo_config(city, tmp_path / 'run', config=files['my_config.py']))
    assert set(runner.model.methods) == {'confident'}
    before = {name: value.clone() for name, value in runner.model.named_parameters()}
    runner.train()
    logged = runner.message_hub.log_scalars
    assert logged['train/confident.loss_kl'].current() > 0
    assert 0 < logged['train/confident.confidence'].current() <= 1
    parameters = dict(runner.model.named_parameters())
    for member in ('student', 'teacher'):
        name = f'members.{member}.decode_head.conv_seg.weight'
        assert not torch.equal(parameters[name], before[name])


def test_an_own_data_set_trains(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (tmp_path / 'data' / 'mine' / kind / split).mkdir(parents=True)
        for index in range(3):
            image = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
            folder = tmp_path / 'data' / 'mine'
            cv2.imwrite(str(folder / 'images' / split / f'{index}.jpg'), image)
            labels = rng.choice(np.array([0, 1, 2, 255], np.uint8), (96, 128))
            cv2.imwrite(str(folder / 'labels' / split / f'{index}.png'), labels)
    files = write_files('datasets.md', tmp_path)
    config = read_config(files['my_data.py'])
    root = tmp_path / config.root
    runner = Runner.from_cfg(
        demo_config(root, tmp_path / 'run', iters=2, config=files['my_data.py'])
    )
    runner.train()
    assert runner.train_dataloader.dataset.metainfo['classes'] == ('road', 'car', 'other')
    assert runner.message_hub.log_scalars['val/student/mIoU'].current() >= 0
    assert runner.model.network('student').decode_head.conv_seg.out_channels == 3
