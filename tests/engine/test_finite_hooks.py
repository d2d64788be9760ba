"""Losses and weights that are not finite: nothing is made of them."""

import json
import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from factory import demo_config, differences, quick_in
from host_waits import Waits
from mmengine.hooks import Hook

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.engine import FiniteLossHook, FiniteWeightsHook, QuietRunner, host_copy
from mmseg_adm.models.methods import ADM

ITERS = 6
GROUP = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.1))
GROUPS = dict(
    _delete_=True, constructor='mmseg_adm.GroupOptimWrapperConstructor', student=GROUP, rest=GROUP
)


@pytest.fixture
def broken_in(monkeypatch):
    """Let a term of ADM become another value in some iterations, counted from 1."""

    def set_up(iterations, value=math.nan):
        forward = ADM.forward
        calls = []

        def broken(self, step):
            losses = forward(self, step)
            calls.append(1)
            if len(calls) in iterations:
                losses['loss_consensus'] = losses['loss_consensus'] * value
            return losses

        monkeypatch.setattr(ADM, 'forward', broken)

    return set_up


@pytest.fixture
def configure(city, tmp_path):
    def make(iters=ITERS, folder='run', val_begin=1000, **options):
        config = demo_config(
            city, tmp_path / folder, iters, train_cfg__val_begin=val_begin, **deepcopy(options)
        )
        config.default_hooks.checkpoint.update(interval=2, save_best=None, max_keep_ckpts=-1)
        for name in ('pictures', 'student_checkpoint'):
            config.default_hooks.pop(name)
        return config

    return make


class States(Hook):
    """The state of a run after each iteration, and what was logged of it."""

    priority = 'LOWEST'

    def __init__(self):
        self.states, self.skipped = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        state = dict(model=runner.model.state_dict(), optimizer=runner.optim_wrapper.state_dict())
        for group in _groups(state['optimizer']):
            group.pop('lr')  # the schedule's
        self.states.append(_cloned(state))
        hub = runner.message_hub.log_scalars
        if 'train/skipped_steps' in hub:
            self.skipped.append(hub['train/skipped_steps'].current())


def _groups(optimizer):
    states = [optimizer] if 'param_groups' in optimizer else optimizer.values()
    return [group for state in states for group in state['param_groups']]


def _cloned(value):
    if isinstance(value, dict):
        return {key: _cloned(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_cloned(child) for child in value]
    return value.clone() if isinstance(value, torch.Tensor) else value


def train(config):
    runner, states = QuietRunner.from_cfg(config), States()
    runner.register_hook(states)
    runner.train()
    return runner, states


def error_of(config):
    with pytest.raises(ValueError) as caught:
        QuietRunner.from_cfg(config).train()
    return str(caught.value)


# ------------------------------------------------------------------------------- losses: stop


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('optim_wrapper', [None, GROUPS], ids=['one', 'groups'])
def test_a_training_stops_before_it_steps(value, optim_wrapper, broken_in, configure, monkeypatch):
    broken_in({4}, value)
    options = {} if optim_wrapper is None else dict(optim_wrapper=optim_wrapper)
    runner = QuietRunner.from_cfg(configure(**options))
    states = States()
    runner.register_hook(states)
    with pytest.raises(ValueError) as caught:
        runner.train()
    text = str(caught.value)
    assert text.startswith(f'not finite at iteration 4: adm.loss_consensus={value} (method adm, ')
    assert 'which trains student, teacher), on ' in text
    assert text.count('_leftImg8bit.png') == 2
    checkpoint = f'{runner.work_dir}/iter_2.pth'
    assert f'The last checkpoint, {checkpoint}, is whole and finite: go on' in text
    assert 'To look at all weights after every step: --cfg-options default_hooks.finite_w' in text
    weights = dict(runner.model.named_parameters())
    for key, value in weights.items():
        assert value.equal(states.states[-1]['model'][key]), f'{key} was stepped'


def test_the_member_of_a_term_is_named(configure):
    config = configure(model__members__student__decode_head__loss_decode__loss_weight=math.inf)
    text = error_of(config)
    assert text.startswith('not finite at iteration 1: student.decode.loss_ce=inf (member student)')
    assert 'No checkpoint was saved before: start again' in text


def test_losses_amid_an_accumulation_stop_too(broken_in, configure):
    broken_in({3})
    config = configure(optim_wrapper__accumulative_counts=2)
    assert error_of(config).startswith('not finite at iteration 3: adm.loss_consensus=nan')


def test_a_plain_segmentor_stops_too(configure):
    config = configure()
    student = config.model.members.student
    student.decode_head.loss_decode.loss_weight = math.nan
    config.model = dict(student, data_preprocessor=config.model.data_preprocessor)
    config.val_cfg = config.val_dataloader = config.val_evaluator = None
    for name in ('preflight', 'schedule', 'member_pause'):
        config.default_hooks.pop(name)
    assert error_of(config).startswith('not finite at iteration 1: decode.loss_ce=nan, on ')


# ------------------------------------------------------------------------------- losses: skip

CASES = {
    'one': {},
    'groups': dict(optim_wrapper=GROUPS),
    'bfloat16': dict(optim_wrapper__type='mmseg_adm.CPUAmpOptimWrapper'),
    'clipped': dict(optim_wrapper__clip_grad=dict(_delete_=True, max_norm=1.0)),
    'averaged teacher': dict(
        model__members__mean_teacher=dict(type='mmseg_adm.EMATeacher', momentum=0.2),
        model__methods__adm__target='mean_teacher',
    ),
}


@pytest.mark.parametrize('case', quick_in(CASES, 'groups', 'averaged teacher'))
def test_a_skipped_step_leaves_everything_as_it_was(case, broken_in, configure):
    broken_in({3, 5})
    runner, found = train(configure(default_hooks__finite_loss__action='skip', **CASES[case]))
    for before in (1, 3):
        assert differences(found.states[before], found.states[before + 1]) == []
        assert differences(found.states[before + 1], found.states[before + 2]) != []
    assert found.skipped == [0, 0, 1, 1, 2, 2]
    (path,) = Path(runner.log_dir).glob('*.log')
    log = path.read_text()
    assert 'not finite at iteration 3: adm.loss_consensus=nan (method adm' in log
    assert ': this step is skipped' in log
    lines = (path.parent / 'vis_data' / 'scalars.json').read_text().splitlines()
    scalars = [json.loads(line) for line in lines]
    assert scalars[-1]['skipped_steps'] == 2
    assert all(math.isfinite(value) for line in scalars for key, value in line.items()
               if 'loss' in key)  # fmt: skip
    rates = {line['student.lr'] for line in scalars}
    assert len(rates) == ITERS, 'schedules go on'


def test_skipping_amid_an_accumulation_skips_the_whole_step(broken_in, configure):
    broken_in({3})
    options = dict(default_hooks__finite_loss__action='skip', optim_wrapper__accumulative_counts=2)
    _, found = train(configure(**options))
    first, second, third = (found.states[after]['optimizer'] for after in (1, 3, 5))
    assert differences(first, second) == []
    assert differences(second, third) != []
    assert found.skipped == [0, 0, 1, 1, 1], 'from the first whole step on'


def test_not_every_step_can_be_skipped(broken_in, configure):
    broken_in(range(1, 100))
    config = configure(
        default_hooks__finite_loss__action='skip', default_hooks__finite_loss__patience=3
    )
    text = error_of(config)
    assert text.startswith('iteration 4: 4 steps were skipped in a row (patience=3). The last che')


def test_weights_that_are_not_finite_are_no_step_to_skip(configure):
    config = configure(default_hooks__finite_loss__action='skip')
    runner = QuietRunner.from_cfg(config)
    runner.register_hook(Spoil('decode_head.conv_seg.bias', iteration=3))
    with pytest.raises(ValueError, match=r'^iteration 4: skipping helps no more: the weights memb'):
        runner.train()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(action='go on'), "action must be one of 'stop', 'skip', got 'go on'"),
        (dict(patience=0), 'patience must be an integer >= 1, got 0'),
        (dict(patience=True), 'patience must be an integer >= 1, got True'),
    ],
)
def test_wrong_options_of_the_losses(options, text):
    with pytest.raises(ValueError, match=text):
        FiniteLossHook(**options)


# ------------------------------------------------------------------------------ no further wait


class DeviceWaits(Waits):
    """Leaves out what is read of tensors that are on the host already."""

    on_host = ()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = self.count
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if self.count > before and args[0].untyped_storage().data_ptr() in self.on_host:
            self.count = before
        return result


class WaitsOfSteps(Hook):
    """Counts the waits of a step: around it, first and last of all hooks."""

    priority = 0

    def __init__(self, on_host):
        self.counts, self.on_host = [], on_host

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.waits = DeviceWaits()
        self.waits.on_host = self.on_host
        self.waits.__enter__()


class EndOfSteps(Hook):
    priority = 100

    def __init__(self, counter):
        self.counter = counter

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.counter.waits.__exit__(None, None, None)
        self.counter.counts.append(self.counter.waits.count)


@pytest.fixture
def waits_of(monkeypatch):
    """Trains a config; the waits of each step, and how often a copy on the host was waited for."""
    reads = []  # where what was waited for lies
    wait = host_copy.HostCopy.wait

    def watched(copy):
        reads.append(copy.values.untyped_storage().data_ptr())
        return wait(copy)

    monkeypatch.setattr(host_copy.HostCopy, 'wait', watched)

    def count(config):
        # The optimizer's own, and what the log averages, are the same in both.
        config.default_hooks.logger.interval = 100
        config.default_hooks.checkpoint.interval = 100
        runner, counter = QuietRunner.from_cfg(config), WaitsOfSteps(reads)
        runner.register_hook(counter)
        runner.register_hook(EndOfSteps(counter))
        reads.clear()
        runner.train()
        return counter.counts, len(reads)

    return count


@pytest.mark.parametrize('action', ['stop', 'skip'])
def test_a_step_waits_no_more_often_than_without(action, configure, waits_of):
    without = configure(iters=3, folder='without')
    for name in ('finite_loss', 'finite_weights'):
        without.default_hooks.pop(name)
    expected, none = waits_of(without)
    counts, read = waits_of(configure(iters=3, default_hooks__finite_loss__action=action))
    assert none == 0
    assert read == 3, 'one wait a step'
    # MMEngine's wait for each loss is gone: the numbers are on the host already.
    assert all(own + 1 < other for own, other in zip(counts, expected, strict=True))


def test_neither_a_pause_nor_an_average_makes_a_step_wait(configure, waits_of):
    plain, other = configure(iters=3, folder='plain'), configure(iters=3)
    plain.model.methods = dict(dml=dict(type='mmseg_adm.DML'))
    other.model.methods = dict(switokd=dict(type='mmseg_adm.SwitOKD'))
    other.model.members.mean_teacher = dict(type='mmseg_adm.EMATeacher')
    other.model.methods.kd = dict(type='mmseg_adm.KD', teacher='mean_teacher')
    (expected, _), (counts, _) = waits_of(plain), waits_of(other)
    # The average asks whether it is new, until it is not.
    assert counts == [expected[0] + 1, expected[1] + 1, expected[2]]


def test_what_is_logged_is_what_the_model_returned(configure):
    config = configure(iters=2)
    without = configure(iters=2, folder='without')
    without.default_hooks.pop('finite_loss')
    logs = []
    for each in (config, without):
        runner, _ = train(each)
        hub = runner.message_hub.log_scalars
        logs.append({name: list(history.data[0]) for name, history in hub.items()
                     if 'time' not in name})  # fmt: skip
    assert logs[0] == logs[1]


# ------------------------------------------------------------------------------------ weights


class Spoil(Hook):
    """Makes one number of a tensor NaN after an iteration."""

    priority = 'HIGHEST'

    def __init__(self, name, iteration=1, state=None):
        self.name, self.iteration, self.state = name, iteration, state

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 != self.iteration:
            return
        tensor = runner.model.state_dict()[f'members.student.{self.name}']
        if self.state is not None:
            parameter = runner.model.get_parameter(f'members.student.{self.name}')
            tensor = runner.optim_wrapper.optimizer.state[parameter][self.state]
        tensor.view(-1)[0] = math.nan


WEIGHT, STATISTICS = 'decode_head.conv_seg.weight', 'backbone.layer1.0.bn1.running_var'
SPOILED = {
    'weights': (dict(name=WEIGHT), f'members.student.{WEIGHT}'),
    'statistics': (dict(name=STATISTICS), f'members.student.{STATISTICS}'),
    'optimizer': (
        dict(name=WEIGHT, state='exp_avg'), f'exp_avg of members.student.{WEIGHT} in the optimizer'
    ),
}  # fmt: skip


@pytest.mark.parametrize('kind', SPOILED)
def test_no_checkpoint_holds_what_is_not_finite(kind, configure):
    spoil, name = SPOILED[kind]
    runner = QuietRunner.from_cfg(configure(iters=4))
    runner.register_hook(Spoil(**spoil, iteration=4))
    with pytest.raises(ValueError) as caught:
        runner.train()
    text = str(caught.value)
    assert text.startswith(f'not finite before a checkpoint: {name}. It is not written. The last ')
    folder = Path(runner.work_dir)
    assert [path.name for path in folder.glob('*.pth')] == ['iter_2.pth']
    assert (folder / 'last_checkpoint').read_text().endswith('iter_2.pth')


def test_nothing_is_validated_that_is_not_finite(configure):
    runner = QuietRunner.from_cfg(configure(iters=3, val_begin=1, train_cfg__val_interval=1))
    runner.register_hook(Spoil(STATISTICS))
    with pytest.raises(
        ValueError, match=r'^not finite before the validation after iteration 1: mem'
    ):
        runner.train()


def test_averaged_weights_are_looked_at(configure):
    config = configure(iters=2, custom_hooks=[dict(type='EMAHook', momentum=0.2)])
    runner = QuietRunner.from_cfg(config)
    runner.register_hook(SpoilAverage(), 'LOWEST')
    config.default_hooks.checkpoint.interval = 2
    with pytest.raises(
        ValueError, match=r'^not finite before a checkpoint: averaged members\.stud'
    ):
        runner.train()


class SpoilAverage(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        (average,) = (hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
        average.ema_model.module.state_dict()[f'members.student.{WEIGHT}'].fill_(math.inf)


def test_the_step_that_made_a_weight_nan_can_be_found(configure):
    config = configure(default_hooks__finite_weights__interval=1)
    runner = QuietRunner.from_cfg(config)
    runner.register_hook(Spoil(WEIGHT, iteration=3))
    text = f'^not finite after the step of iteration 3: members.student.{WEIGHT}. The last checkpoi'
    with pytest.raises(ValueError, match=text):
        runner.train()


def test_a_checkpoint_that_is_not_finite_is_not_resumed(configure, tmp_path):
    runner, _ = train(configure(iters=2))
    checkpoint = read_checkpoint(f'{runner.work_dir}/iter_2.pth')
    checkpoint['state_dict'][f'members.student.{WEIGHT}'].fill_(math.nan)
    torch.save(checkpoint, tmp_path / 'broken.pth')
    for resume in (True, False):
        config = configure(
            folder='again', resume=resume, load_from=str(tmp_path / 'broken.pth'), iters=4
        )
        text = error_of(config)
        assert text.startswith(f'{tmp_path}/broken.pth holds weights that are not finite (NaN or ')
        assert WEIGHT in text


@pytest.mark.parametrize('interval', [-1, True, 0.5, '1'])
def test_wrong_options_of_the_weights(interval):
    with pytest.raises(ValueError, match='interval must be an integer >= 0, got '):
        FiniteWeightsHook(interval=interval)
