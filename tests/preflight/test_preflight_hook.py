"""Preflight before iteration 1 of a real run."""

import logging

import pytest
import torch
from factory import build, differences
from method_cases import VARIANTS
from method_models import network, weights_of
from mmengine.runner import Runner

from mmseg_adm.engine.hooks import preflight as hook_module
from mmseg_adm.preflight import teachers

pytestmark = pytest.mark.core

ITERS = 3


@pytest.fixture
def ignorant_teachers(monkeypatch):
    monkeypatch.setattr(teachers, 'MARGIN', -10)


@pytest.fixture
def logged(monkeypatch):
    """Everything that runs log."""
    messages = []
    log = logging.Logger.info

    def info(self, message, *args, **options):
        messages.append(str(message))
        log(self, message, *args, **options)

    monkeypatch.setattr(logging.Logger, 'info', info)
    return lambda: '\n'.join(messages)


def use(config, variant):
    """Let the run train one method."""
    student, teacher = (network(width, classes=19, dropout=0.1) for width in (4, 8))
    checkpoint = weights_of(teacher) if variant.members == 'bridge' else None
    config.model.members = variant.networks(student, teacher, checkpoint)
    config.model.student = variant.student
    config.model.methods = dict(method=variant.config)
    config.default_hooks.checkpoint.save_best = None
    config.default_hooks.pop('pictures')
    return config


def use_stock_data(config):
    """Data and steps that draw from the random states of the process."""
    loader = config.train_dataloader
    loader.dataset = loader.dataset.dataset
    loader.sampler = dict(type='InfiniteSampler', shuffle=True)
    config.default_hooks.pop('data_stream')
    return config


def train(config, enabled, folder):
    config = config.copy()
    config.work_dir = str(folder / str(enabled))
    config.default_hooks.preflight.enabled = enabled
    config.train_cfg.update(max_iters=ITERS, val_begin=1000)
    config.default_hooks.checkpoint.interval = ITERS
    # MMEngine keeps the visualizer of a name for the whole process.
    config.visualizer.name = config.experiment_name = f'preflight_{enabled}'
    runner = Runner.from_cfg(config)
    runner.train()
    optimizer = runner.optim_wrapper.state_dict()
    return dict(runner.model.state_dict()), optimizer, torch.get_rng_state()


@pytest.mark.parametrize(
    ('method', 'name', 'stock'),
    [
        ('ADM', 'alignment-weighting-logits', False),
        pytest.param('FFSD', 'default', True, marks=pytest.mark.slow),
        pytest.param('MGD', 'default', True, marks=pytest.mark.slow),
        pytest.param('SOKD', 'default', True, marks=pytest.mark.slow),
        pytest.param('SwitOKD', 'default', False, marks=pytest.mark.slow),
    ],
)
def test_training_is_the_same_to_the_bit(
    method, name, stock, preflight_config, measured, ignorant_teachers, logged, tmp_path
):
    variant = next(each for each in VARIANTS if (each.method, each.name) == (method, name))
    config = use(preflight_config, variant)
    if stock:
        use_stock_data(config)
    without = train(config, False, tmp_path)
    assert 'Preflight:' not in logged()
    looked_at = train(config, True, tmp_path)
    assert logged().count('Preflight:') == 1
    assert differences(without, looked_at) == []
    fresh = build(config.model).state_dict()
    assert differences(dict(fresh), looked_at[0])


def test_a_resumed_run_is_not_looked_at_again(preflight_config, logged):
    config = preflight_config
    config.train_cfg.update(max_iters=2, val_begin=1000)
    config.default_hooks.checkpoint.interval = 2
    Runner.from_cfg(config).train()
    assert logged().count('Preflight:') == 1
    config.resume = True
    config.train_cfg.max_iters = 3
    Runner.from_cfg(config).train()
    assert logged().count('Preflight:') == 1


def test_an_untrained_teacher_stops_the_run(preflight_config, logged, tmp_path):
    teacher = network(8, classes=19)
    checkpoint = weights_of(teacher)
    preflight_config.model.members.teacher = dict(teacher, frozen=True, checkpoint=checkpoint)
    preflight_config.model.methods = dict(kd=dict(type='mmseg_adm.KD'))
    with pytest.raises(ValueError) as caught:
        Runner.from_cfg(preflight_config).train()
    first, line, last = str(caught.value).splitlines()
    assert first == 'preflight found what must be put right first:'
    assert line.startswith('  score of teacher: mIoU ')
    assert '--skip-preflight' in last
    # The tables are there to look at all the same.
    assert 'kd.loss_kl' not in logged()
    assert 'ResNetV1c-18 + PSPHead' in logged()
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_trained_teacher_does_not(preflight_config, trained_teacher, logged, tmp_path):
    teacher = dict(network(8, classes=19), frozen=True, checkpoint=str(trained_teacher))
    preflight_config.model.members.teacher = teacher
    preflight_config.model.methods = dict(kd=dict(type='mmseg_adm.KD'))
    preflight_config.train_cfg.update(max_iters=1, val_begin=1000)
    preflight_config.default_hooks.checkpoint.interval = 1
    Runner.from_cfg(preflight_config).train()
    assert 'kd.loss_kl' in logged()
    assert (tmp_path / 'run' / 'iter_1.pth').is_file()


def test_a_warning_does_not_stop_the_run(preflight_config, logged, tmp_path):
    preflight_config.model.methods.dml.weight = 0.0
    preflight_config.train_cfg.update(max_iters=1, val_begin=1000)
    preflight_config.default_hooks.checkpoint.interval = 1
    Runner.from_cfg(preflight_config).train()
    assert 'warning' in logged()
    assert (tmp_path / 'run' / 'iter_1.pth').is_file()


def test_what_failed_in_another_process_stops_this_one(preflight_config, monkeypatch):
    def gathered(own):
        assert own == []
        return [own, ['val data: a file is missing there']]

    monkeypatch.setattr(hook_module, 'all_gather_object', gathered)
    with pytest.raises(ValueError, match='val data: a file is missing there'):
        Runner.from_cfg(preflight_config).train()


def test_mixed_precision_and_groups_of_optimizers(preflight_config, measured, logged):
    preflight_config.optim_wrapper = dict(
        constructor='mmseg_adm.GroupOptimWrapperConstructor',
        dtype='bfloat16',
        teacher=dict(optimizer=dict(type='AdamW', lr=0.001)),
        rest=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
    )
    preflight_config.train_cfg.update(max_iters=1, val_begin=1000)
    preflight_config.default_hooks.checkpoint.interval = 1
    Runner.from_cfg(preflight_config).train()
    assert 'Memory of a step, ' in logged()
    assert 'losses update whom they should' in logged()


def test_averaged_weights(preflight_config, logged):
    preflight_config.custom_hooks = [dict(type='EMAHook')]
    preflight_config.train_cfg.update(max_iters=1, val_begin=1000)
    preflight_config.default_hooks.checkpoint.interval = 1
    Runner.from_cfg(preflight_config).train()
    assert 'losses update whom they should' in logged()
