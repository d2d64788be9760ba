"""The code in the documents is run."""

import re
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from factory import ROOT, demo_config, save_segmentor, segmentor
from mmengine.runner import Runner
from mmseg.registry import MODELS as MMSEG_MODELS

import mmseg_adm
from mmseg_adm.config import check_config, read_config, resolve_config, trackers
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


# In the quick suite tests/tools/test_train_and_test.py does the same by the commands.
@pytest.mark.slow
def test_training_and_export_from_python(city, tmp_path, monkeypatch):
    """The page's program, on networks and images as small as the others here."""
    path = write_files('python.md', tmp_path)['distill.py']
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    for shown, small in (("'train_cfg.max_iters': 80000", repr(small_pair(city))[1:-1]),
                         ('iter_80000', 'iter_2')):  # fmt: skip
        assert shown in text
        text = text.replace(shown, small)
    names: dict = {}
    exec(compile(text, path, 'exec'), names)
    assert names['config'].to_dict().get('work_dir') is None
    assert names['config'].train_cfg.max_iters == 80000
    (written,) = (tmp_path / 'run').glob('adm_*.py')
    assert written.name == names['config'].filename
    assert names['student'].samefile('run/export/student_iter_2.pth')
    assert names['student'].with_suffix('.py').is_file()
    (line,) = re.findall(r'^runner\.message_hub.*$', (ROOT / 'docs/python.md').read_text(), re.M)
    assert 0 <= eval(line, names) <= 100


def small_pair(city) -> dict:
    narrow = {
        f'model.members.{member}.{option}': value
        for member in ('student', 'teacher')
        for option, value in {
            'backbone.depth': 18, 'backbone.base_channels': 4, 'backbone.stem_channels': 4,
            'decode_head.in_channels': 32, 'decode_head.channels': 8,
            'auxiliary_head.in_channels': 16, 'auxiliary_head.channels': 8,
        }.items()
    }  # fmt: skip
    roots = {
        'train_dataloader.dataset.dataset.data_root': str(city),
        'val_dataloader.dataset.data_root': str(city),
    }
    loaders = {
        f'{split}_dataloader.{option}': value
        for split in ('train', 'val')
        for option, value in (('num_workers', 0), ('persistent_workers', False))
    }
    return {
        **narrow,
        **roots,
        **loaders,
        'train_cfg.max_iters': 2,
        'train_cfg.val_interval': 2,
        'train_dataloader.batch_size': 2,
        'train_dataloader.dataset.dataset.pipeline.2.scale': (96, 48),
        'train_dataloader.dataset.dataset.pipeline.3.crop_size': (48, 64),
        'val_dataloader.dataset.pipeline.1.scale': (96, 48),
        'model.data_preprocessor.size': (48, 64),
        'default_hooks.checkpoint.interval': 2,
        'default_hooks.logger.interval': 1,
    }


@pytest.mark.slow
def test_the_config_that_mmrazors_becomes(city, tmp_path):
    """It is the shipped one of CWD, and trains."""
    path = write_files('mmrazor.md', tmp_path)['cwd_from_mmrazor.py']
    own = resolve_config(read_config(path))
    name = 'cwd_pspnet_r101-d8_pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    shipped = resolve_config(read_config(ROOT / 'configs/cwd' / name))
    for part in ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'train_cfg', 'val_cfg'):
        assert own[part] == shipped[part]
    assert own.model.methods == shipped.model.methods
    teachers = (own.model.members.teacher, shipped.model.members.teacher)
    assert [each.frozen for each in teachers] == [True, True]
    assert len({Path(each.checkpoint).name for each in teachers}) == 1
    # Of the kind and size that the narrow ones of small_pair have.
    teacher = segmentor(4, classes=19, auxiliary=True)
    teacher['decode_head'].update(channels=8, pool_scales=(1, 2, 3, 6))
    teacher['auxiliary_head'].update(channels=8)
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', teacher)
    options = small_pair(city) | {'model.members.teacher.checkpoint': checkpoint}
    runner = mmseg_adm.train(
        path, tmp_path / 'run', cfg_options=options, pretrained=False, preflight=False
    )
    assert runner.message_hub.log_scalars['train/cwd.loss_cwd'].current() > 0
    assert set(runner.model.frozen) == {'teacher'}


def test_another_backbone(tmp_path):
    path = write_files('training.md', tmp_path)['mobilenet.py']
    config = resolve_config(read_config(path))
    check_config(config)
    student = config.model.members.student
    student.backbone.norm_cfg = student.decode_head.norm_cfg = dict(type='BN')
    network = MMSEG_MODELS.build(student).eval()
    assert network(torch.zeros(1, 3, 64, 64), mode='tensor').shape[1] == 19


def test_the_student_alone_beside(tmp_path):
    config = resolve_config(read_config(write_files('measuring.md', tmp_path)['beside_alone.py']))
    check_config(config)
    student, alone = config.model.members.student, config.model.members.alone
    assert alone.frozen
    for part in ('backbone', 'decode_head'):
        assert alone[part].type == student[part].type
    assert alone.decode_head.channels == student.decode_head.channels


@pytest.mark.parametrize('installed', [True, False])
def test_another_tracker(installed, tmp_path, monkeypatch):
    config = read_config(write_files('training.md', tmp_path)['tracked.py'])
    monkeypatch.setattr(trackers, 'find_spec', lambda name: name if installed else None)
    with nullcontext() if installed else pytest.raises(ValueError, match='pip install wandb'):
        check_config(config)
