"""Every method in a real Runner, in mixed precision: train, save, resume, export."""

import pytest
import torch
from factory import (
    ROOT,
    demo_config,
    differences,
    quick_in,
    raw_batch,
    save_segmentor,
    segmentor,
)
from method_cases import METHODS
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader
from mmseg.registry import MODELS as MMSEG_MODELS
from torch.testing import assert_close

from mmseg_adm.checkpoint import read_checkpoint

pytestmark = pytest.mark.core

CLASSES = 19
ITERS = 2
DML = ROOT / (
    'configs/dml/dml_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
)


@pytest.fixture(autouse=True)
def checkpoint_schemes(monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', CheckpointLoader._schemes.copy())


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    return save_segmentor(path, segmentor(8, CLASSES))


# Methods that can train together: of each the first variant, by what their members are.
RUNS = {
    'offline': [variants[0] for variants in METHODS.values()
                if variants[0].members == 'pair' and variants[0].frozen_teacher],
    'online': [variants[0] for variants in METHODS.values()
               if variants[0].members == 'pair' and not variants[0].frozen_teacher],
    'bridge': METHODS['SOKD'],
    'peers': METHODS['FFSD'],
}  # fmt: skip


def test_every_method_is_in_a_run():
    assert sorted(each.method for run in RUNS.values() for each in run) == sorted(METHODS)


@pytest.fixture(scope='module')
def trained(city, teacher, tmp_path_factory):
    """The folder of a run, trained once; checkpoints after each iteration."""
    folders = {}

    def run(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            runner = train(configure(name, city, teacher, folders[name]))
            runner.model.eval()
            with torch.no_grad():
                images = torch.stack(raw_batch()['inputs']).float()
                torch.save(runner.model(images), folders[name] / 'logits.pt')
        return folders[name]

    return run


def configure(name, city, teacher, work_dir, **options):
    variant = RUNS[name][0]
    config = demo_config(
        city, work_dir, ITERS, DML, train_cfg__val_interval=1000,
        default_hooks__checkpoint__max_keep_ckpts=-1,
        optim_wrapper__type='mmseg_adm.CPUAmpOptimWrapper', **options,
    )  # fmt: skip
    config.default_hooks.checkpoint.update(interval=1, save_best=None)
    config.default_hooks.pop('pictures')
    frozen = teacher if name in ('offline', 'bridge') else None
    config.model.members = variant.networks(segmentor(4, CLASSES), segmentor(8, CLASSES), frozen)
    config.model.student = variant.student
    config.model.methods = {each.method.lower(): each.config for each in RUNS[name]}
    return config


def train(config):
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def state_of(path):
    checkpoint = read_checkpoint(path)
    return dict(checkpoint['state_dict']), checkpoint['optimizer'], checkpoint['param_schedulers']


@pytest.mark.parametrize('name', quick_in(RUNS, 'online'))
def test_a_resumed_step_is_the_same_step(name, trained, city, teacher, tmp_path):
    folder = trained(name)
    first, second = (state_of(folder / f'iter_{i}.pth') for i in (1, 2))
    moved = [key for key in first[0] if not torch.equal(first[0][key], second[0][key])]
    for part in {key.split('.')[1] for key in first[0] if key.startswith('members.')}:
        assert any(key.startswith(f'members.{part}.decode_head.conv_seg') for key in moved)
    for method in {key.split('.')[1] for key in first[0] if key.startswith('methods.')}:
        assert any(key.startswith(f'methods.{method}.') for key in moved)
    config = configure(
        name, city, teacher, tmp_path, resume=True, load_from=str(folder / 'iter_1.pth')
    )
    train(config)
    assert differences(state_of(tmp_path / 'iter_2.pth'), second) == []


@pytest.mark.parametrize('name', quick_in(RUNS, 'online'))
def test_the_student_is_a_plain_segmentor(name, trained):
    folder, student = trained(name), RUNS[name][0].student
    config = Config.fromfile(folder / f'{student}_iter_2.py')
    assert 'mmseg_adm' not in config.pretty_text
    network = MMSEG_MODELS.build(config.model).eval()
    network.load_state_dict(read_checkpoint(folder / f'{student}_iter_2.pth')['state_dict'])
    with torch.no_grad():
        logits = network(torch.stack(raw_batch()['inputs']).float())
    assert_close(logits, torch.load(folder / 'logits.pt'), rtol=0, atol=0)
