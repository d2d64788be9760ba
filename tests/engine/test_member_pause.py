import copy
from types import SimpleNamespace

import pytest
import torch
from factory import build, demo_config, distiller_config, losses_of, raw_batch, segmentor
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict, build_optim_wrapper
from mmengine.runner import Runner
from test_optim import gradients, norm
from test_resume import ITERS, differences, final_state, interrupt_and_resume, train
from torch.testing import assert_close

from mmseg_adm.engine.hooks.member_pause import MemberPauseHook
from mmseg_adm.models.methods import SwitOKD

# Beside the method that pauses, others that train the teacher: its own cross entropy, too.
METHODS = dict(
    switokd=dict(type='mmseg_adm.SwitOKD'),
    dml=dict(type='mmseg_adm.DML'),
    adm=dict(type='mmseg_adm.ADM'),
)
RATE = 0.05
OPTIMIZERS = {
    'SGD': dict(type='SGD', lr=RATE, momentum=0.9, weight_decay=0.1),
    'AdamW': dict(type='AdamW', lr=RATE, weight_decay=0.1),
}


def together(optimizer, **options):
    return dict(optimizer=optimizer, **options)


def apart(optimizer, **options):
    group = dict(optimizer=optimizer)
    return dict(
        constructor='mmseg_adm.GroupOptimWrapperConstructor', student=group, teacher=group,
        rest=group, **options,
    )  # fmt: skip


def in_half(optimizer):
    return apart(optimizer, dtype='float16', loss_scale=dict(init_scale=256.0))


WRAPPERS = {'one optimizer': together, 'groups': apart}


class Training:
    """A loop of a training's essentials; :meth:`step` says whether the teacher pauses."""

    def __init__(self, config, methods=METHODS):
        members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(8, dropout=0.0))
        self.model = build(distiller_config(methods, members=members)).train()
        self.wrapper = build_optim_wrapper(self.model, copy.deepcopy(config))
        several = isinstance(self.wrapper, OptimWrapperDict)
        self.wrappers = list(self.wrapper.values()) if several else [self.wrapper]
        self.hook = MemberPauseHook()
        self.runner = SimpleNamespace(model=self.model, optim_wrapper=self.wrapper)
        self.hook.before_train(self.runner)
        self.pauses = False
        if 'switokd' in methods:
            self.model.methods['switokd']._switch = lambda step: (
                torch.tensor(2.0), torch.tensor(1.0), torch.tensor(self.pauses)
            )  # fmt: skip

    def step(self, pauses, seed=0):
        self.pauses = pauses
        self.hook.before_train_iter(self.runner, 0)
        logs = self.model.train_step(raw_batch(seed=seed), self.wrapper)
        self.hook.after_train_iter(self.runner, 0)
        return logs

    def gradients(self, seed):
        """Of a batch that pauses nobody, by parameter."""
        self.pauses = False
        plain = OptimWrapper(torch.optim.SGD(self.model.parameters(), lr=RATE))
        return gradients(self.model, raw_batch(seed=seed), plain)

    def state(self, member):
        """Parameters and what the optimizers know about them, and running statistics."""
        network = self.model.members[member]
        optimizers = [each.optimizer for each in self.wrappers]
        state = {key: (buffer.clone(), None) for key, buffer in network.named_buffers()}
        for key, parameter in network.named_parameters():
            known = [optimizer.state[parameter] for optimizer in optimizers
                     if parameter in optimizer.state]  # fmt: skip
            state[key] = copy.deepcopy((parameter.detach(), known))
        return state


@pytest.mark.parametrize(
    'config',
    [
        *(wrap(optimizer) for wrap in WRAPPERS.values() for optimizer in OPTIMIZERS.values()),
        in_half(OPTIMIZERS['SGD']),
    ],
    ids=[*(f'{name}, {kind}' for name in WRAPPERS for kind in OPTIMIZERS), 'float16'],
)
def test_a_paused_member_stays_as_it_is(config):
    training = Training(config)
    training.step(False, seed=1)
    student, teacher = training.state('student'), training.state('teacher')
    assert all(known != [] for _, known in teacher.values())
    assert any(key.endswith('running_var') for key in teacher)
    for seed in (2, 3):
        logs = training.step(True, seed)
        assert logs['switokd.paused'] == 1
        assert logs['teacher.decode.loss_ce'] > 0
        assert differences(teacher, training.state('teacher')) == []
    assert differences(student, training.state('student')) != []
    training.step(False, seed=4)
    moved = differences(teacher, training.state('teacher'))
    assert {path.split('/')[1] for path in moved} == set(teacher)


def test_momentum_alone_would_move_it():
    # Why its gradient is taken away rather than set to zero.
    training = Training(together(OPTIMIZERS['SGD']))
    training.step(False)
    before = training.state('teacher')
    for parameter in training.model.members['teacher'].parameters():
        parameter.grad = torch.zeros_like(parameter)
    training.wrapper.step()
    assert differences(before, training.state('teacher')) != []


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize('paused', [0, 1])
def test_of_two_accumulated_batches_the_paused_one_does_not_count(paused, wrap):
    training = Training(wrap(dict(type='SGD', lr=RATE), accumulative_counts=2))
    found = [training.gradients(seed) for seed in (0, 1)]
    before = copy.deepcopy(dict(training.model.named_parameters()))
    for seed in (0, 1):
        training.step(seed == paused, seed)
    for key, parameter in training.model.named_parameters():
        counts = [batch for seed, batch in enumerate(found)
                  if seed != paused or not key.startswith('members.teacher.')]  # fmt: skip
        # The accumulation divides by its two batches all the same.
        step = RATE * sum(batch[key] for batch in counts) / 2
        assert_close(parameter, before[key] - step, rtol=1e-4, atol=1e-6)
    assert norm(found[0][key] - found[1][key] for key in found[0]) > 0.1


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_each_accumulation_begins_anew(wrap):
    training = Training(wrap(OPTIMIZERS['SGD'], accumulative_counts=2))
    for seed, pauses in enumerate((False, True)):
        training.step(pauses, seed)
    before = training.state('teacher')
    for seed in (2, 3):
        training.step(True, seed)
    assert differences(before, training.state('teacher')) == []
    assert training.hook.gathered == set()


@pytest.mark.parametrize('paused', [0, 1])
def test_running_statistics_take_in_the_batches_that_count(paused):
    expected = Training(together(OPTIMIZERS['SGD'], accumulative_counts=2))
    expected.step(False, seed=1 - paused)
    training = Training(together(OPTIMIZERS['SGD'], accumulative_counts=2))
    for seed in (0, 1):
        training.step(seed == paused, seed)
    for member, alike in (('teacher', True), ('student', False)):
        found, counted = (
            dict(each.model.members[member].named_buffers()) for each in (training, expected)
        )
        assert (differences(counted, found) == []) == alike


def test_clipping_sees_no_gradient_of_the_paused():
    config = together(dict(type='SGD', lr=RATE), clip_grad=dict(max_norm=0.01))
    # Without ADM, whose projection has by far the largest gradient here.
    training = Training(config, dict(switokd=METHODS['switokd']))
    found = training.gradients(0)
    others = norm(value for key, value in found.items() if not key.startswith('members.teacher.'))
    assert norm(found.values()) > 1.05 * others
    before = copy.deepcopy(dict(training.model.named_parameters()))
    training.step(True)
    logged = MessageHub.get_current_instance().log_scalars['train/grad_norm'].current()
    assert logged == pytest.approx(others, rel=1e-4)
    moved = norm(value - before[key] for key, value in training.model.named_parameters())
    assert moved == pytest.approx(RATE * 0.01, rel=1e-3)


def test_a_method_that_has_stopped_pauses_nobody():
    training = Training(together(OPTIMIZERS['SGD']))
    training.step(True)
    before = training.state('teacher')
    training.model.methods['switokd'].strength = 0.0
    training.step(True)
    assert differences(before, training.state('teacher')) != []


def test_only_members_that_may_pause_are_watched():
    training = Training(together(OPTIMIZERS['SGD']))
    watched = {key for key, parameter in training.model.named_parameters()
               if parameter._backward_hooks}  # fmt: skip
    assert watched == {key for key, _ in training.model.named_parameters()
                       if key.startswith('members.teacher.')}  # fmt: skip


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_methods_that_never_pause_leave_no_hooks(wrap):
    methods = {name: METHODS[name] for name in ('dml', 'adm')}
    training = Training(wrap(OPTIMIZERS['SGD']), methods)
    training.step(False)
    assert not any(parameter._backward_hooks for parameter in training.model.parameters())
    assert not any(each.optimizer._optimizer_step_pre_hooks for each in training.wrappers)
    assert not training.model.pauses_members


# ------------------------------------------------------------------------------------ in a run


PAUSED = (1, 3)


class Teachers(Hook):
    """Notes the teacher's weights and statistics after each iteration, and what was logged."""

    def __init__(self):
        self.states = []
        self.paused = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        teacher = runner.model.members['teacher']
        self.states.append(copy.deepcopy(teacher.state_dict()))
        self.paused.append(bool(outputs['switokd.paused']))


@pytest.fixture
def pausing(monkeypatch):
    """Pauses in certain iterations."""

    def switch(method, step):
        iteration = MessageHub.get_current_instance().get_info('iter')
        return torch.tensor(2.0), torch.tensor(1.0), torch.tensor(iteration in PAUSED)

    monkeypatch.setattr(SwitOKD, '_switch', switch)


@pytest.fixture
def configure(city, tmp_path, pausing):
    def make(folder='run', iters=ITERS, wrap=None, **options):
        config = demo_config(
            city, tmp_path / folder, iters, train_cfg__val_begin=1000,
            default_hooks__checkpoint__max_keep_ckpts=-1, **options,
        )  # fmt: skip
        config.default_hooks.checkpoint.interval = 3
        config.model.methods = copy.deepcopy(METHODS)
        if wrap is not None:
            config.optim_wrapper = wrap(OPTIMIZERS['SGD'])
        return config

    return make


@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_a_run_with_pauses(wrap, configure):
    runner = Runner.from_cfg(configure(wrap=wrap))
    teachers = Teachers()
    runner.register_hook(teachers)
    runner.train()
    assert teachers.paused == [iteration in PAUSED for iteration in range(ITERS)]
    pairs = zip(teachers.states, teachers.states[1:], strict=False)
    for iteration, (before, after) in enumerate(pairs, start=1):
        same = [key for key in before if torch.equal(before[key], after[key])]
        assert same == (list(before) if iteration in PAUSED else [])


@pytest.mark.core
@pytest.mark.slow
@pytest.mark.parametrize('wrap', WRAPPERS.values(), ids=WRAPPERS)
def test_a_resumed_run_ends_as_the_uninterrupted_one(wrap, configure, tmp_path):
    def again(**options):
        return configure('resumed', wrap=wrap, **options)

    train(configure('through', wrap=wrap))
    # The first iteration after the checkpoint pauses.
    assert interrupt_and_resume(again, stop_in=4) == [3, 4]
    assert differences(final_state(tmp_path / 'through'), final_state(tmp_path / 'resumed')) == []


def test_a_pause_without_the_hook_is_refused(configure):
    config = configure()
    config.default_hooks.pop('member_pause')
    with pytest.raises(
        RuntimeError, match=r"'switokd' may pause teacher, .*mmseg_adm\.MemberPauseHook"
    ) as found:
        Runner.from_cfg(config).train()
    assert 'default_hooks=dict(member_pause=' in str(found.value)


def test_evaluating_the_losses_needs_no_hook():
    model = build(distiller_config(dict(switokd=METHODS['switokd']))).eval()
    model.methods['switokd']._switch = lambda step: (
        torch.tensor(2.0), torch.tensor(1.0), torch.tensor(True)
    )  # fmt: skip
    assert losses_of(model)['switokd.paused'] == 1
    assert model.paused_members() == {'teacher': torch.tensor(True)}
