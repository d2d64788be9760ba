"""Optimizers and schedules of a pair."""

import pytest
import torch
from factory import build, raw_batch
from mmengine.optim import build_optim_wrapper
from plain_configs import ADAMW, GROUPS, SGD, other, pair, plain, poly, warm_up

pytestmark = pytest.mark.core


def test_one_optimizer_where_both_agree():
    paired = pair(plain(), plain('data/other', width=8, iters=200))
    assert paired.optim_wrapper == plain().optim_wrapper
    assert paired.param_scheduler == [poly(100)]


@pytest.mark.parametrize('same', [True, False], ids=['alike', 'apart'])
def test_each_clips_its_own_gradients(same):
    """Of one optimizer it would be the joint norm, in which the larger gradient swallows a step."""
    limit = 0.01
    wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=1.0), clip_grad=dict(max_norm=limit)
    )
    others = dict(wrapper, optimizer=dict(type='SGD', lr=2.0))
    paired = pair(plain(optim_wrapper=wrapper), other(optim_wrapper=wrapper if same else others),
                  dict(dml=dict(type='mmseg_adm.DML')))  # fmt: skip
    model = build(paired.model)
    before = {key: value.clone() for key, value in model.named_parameters()}
    model.train_step(raw_batch(), build_optim_wrapper(model, paired.optim_wrapper))
    for member, rate in (('student', 1.0), ('teacher', 1.0 if same else 2.0)):
        stepped = torch.stack([
            (value - before[key]).norm() for key, value in model.named_parameters()
            if key.startswith(f'members.{member}.')
        ]).norm()  # fmt: skip
        assert stepped.item() == pytest.approx(rate * limit, rel=1e-3)


def test_a_group_for_each_where_they_differ():
    paramwise = dict(custom_keys=dict(head=dict(lr_mult=10.0)))
    wrapper = dict(type='OptimWrapper', optimizer=ADAMW, paramwise_cfg=paramwise,
                   clip_grad=dict(max_norm=1))  # fmt: skip
    schedule = [warm_up(15), poly(200, 15, power=1.0)]
    paired = pair(plain(), other(optim_wrapper=wrapper, param_scheduler=schedule))
    assert paired.optim_wrapper == dict(
        constructor=GROUPS,
        student=dict(optimizer=SGD, clip_grad=None),
        teacher=dict(optimizer=ADAMW, paramwise_cfg=paramwise, clip_grad=dict(max_norm=1)),
        rest=dict(optimizer=SGD),
    )
    assert paired.param_scheduler == dict(
        student=[poly(100)],
        teacher=[warm_up(15), poly(100, 15, power=1.0)],
        rest=[poly(100)],
    )


@pytest.mark.parametrize(
    ('given', 'stretched'),
    [
        ([poly(200)], [poly(100)]),
        (poly(200, power=2.0), [poly(100, power=2.0)]),
        ([warm_up(150)], [warm_up(100)]),
        ([warm_up(20), poly(120, 20)], [warm_up(20), poly(100, 20)]),
        ([warm_up(120), poly(200, 120)], [warm_up(100)]),
        (
            [dict(type='MultiStepLR', milestones=[120, 180], by_epoch=False)],
            [dict(type='MultiStepLR', milestones=[60, 90], by_epoch=False)],
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=190, begin=10, end=200, by_epoch=False)],
            [dict(type='CosineAnnealingLR', T_max=90, begin=10, end=100, by_epoch=False)],
        ),
        (
            [warm_up(10), dict(type='CosineAnnealingLR', T_max=200, begin=10, by_epoch=False)],
            [warm_up(10), dict(type='CosineAnnealingLR', T_max=100, begin=10, by_epoch=False)],
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=50, begin=10, by_epoch=False)],
            [dict(type='CosineAnnealingLR', T_max=50, begin=10, by_epoch=False)],
        ),
        # It counts validations: MMEngine takes it by epochs alone.
        (
            [dict(type='ReduceOnPlateauLR', monitor='aAcc', rule='greater', patience=20)],
            [dict(type='ReduceOnPlateauLR', monitor='MONITOR', rule='greater', patience=20)],
        ),
        ([], []),
    ],
)
def test_the_teachers_schedule_is_stretched(given, stretched):
    paired = pair(plain(), other(param_scheduler=given))
    for part in paired.param_scheduler.teacher:
        if 'monitor' in part:
            part.monitor = 'MONITOR'
    assert paired.param_scheduler.teacher == stretched


def test_accumulation_is_the_students():
    def counting(optimizer, counts):
        return dict(type='OptimWrapper', optimizer=optimizer, accumulative_counts=counts)

    wrapper = pair(
        plain(optim_wrapper=counting(SGD, 4)), other(optim_wrapper=counting(ADAMW, 2))
    ).optim_wrapper
    assert wrapper.accumulative_counts == 4
    assert 'accumulative_counts' not in wrapper.student
    assert 'accumulative_counts' not in wrapper.teacher
    wrapper = pair(plain(), other(optim_wrapper=counting(ADAMW, 2))).optim_wrapper
    assert 'accumulative_counts' not in wrapper


@pytest.mark.parametrize(
    ('amp', 'options', 'expected'),
    [
        (('student',), dict(), dict(dtype='float16')),
        (('teacher',), dict(loss_scale='dynamic'), dict(dtype='float16')),
        (
            ('student', 'teacher'),
            dict(loss_scale=512.0),
            dict(dtype='float16', loss_scale=dict(init_scale=512.0)),
        ),
        (('teacher',), dict(dtype='bfloat16'), dict(dtype='bfloat16')),
    ],
)
def test_mixed_precision_of_one_is_that_of_both(amp, options, expected):
    wrappers = {}
    for role, optimizer in (('student', SGD), ('teacher', ADAMW)):
        wrapper = dict(type='OptimWrapper', optimizer=optimizer)
        wrappers[role] = wrapper | dict(options, type='AmpOptimWrapper') if role in amp else wrapper
    found = pair(
        plain(optim_wrapper=wrappers['student']), other(optim_wrapper=wrappers['teacher'])
    ).optim_wrapper
    assert found == dict(
        constructor=GROUPS, student=dict(optimizer=SGD), teacher=dict(optimizer=ADAMW),
        rest=dict(optimizer=SGD), **expected,
    )  # fmt: skip


LAYERS = dict(
    type='OptimWrapper',
    optimizer=ADAMW,
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=2, decay_rate=0.5, decay_type='stage_wise'),
)


@pytest.mark.parametrize('method', ['adm', 'kd'])
def test_a_constructor_is_given_the_member_that_it_knows(method):
    frozen = method == 'kd'
    paired = pair(plain(optim_wrapper=LAYERS), plain(optim_wrapper=LAYERS), method,
                  'teacher.pth' if frozen else None)  # fmt: skip
    groups = {'student', 'rest'} if frozen else {'student', 'teacher', 'rest'}
    assert set(paired.optim_wrapper) == groups | {'constructor'}
    assert set(paired.param_scheduler) == groups
    for name in groups - {'rest'}:
        own = paired.optim_wrapper[name]
        assert own.constructor == 'LearningRateDecayOptimizerConstructor'
        assert own.paramwise_cfg == LAYERS['paramwise_cfg']


def test_a_frozen_teacher_needs_no_optimizer():
    teacher = other()
    for key in ('optim_wrapper', 'train_cfg', 'param_scheduler'):
        teacher.pop(key)
    paired = pair(plain(), teacher, 'cwd', 'teacher.pth')
    assert paired.optim_wrapper == plain().optim_wrapper
    assert paired.param_scheduler == [poly(100)]
    with pytest.raises(ValueError, match=r'the config of the teacher, .* has no optim_wrapper'):
        pair(plain(), teacher)


def test_schedules_by_epochs_are_refused():
    epochs = dict(type='EpochBasedTrainLoop', max_epochs=3)
    with pytest.raises(ValueError, match=r'trains by epochs; .* give train_cfg\.max_iters'):
        pair(plain(), other(train_cfg=epochs))
    schedule = [dict(type='PolyLR', end=200)]
    with pytest.raises(ValueError, match='schedules PolyLR by epochs: set by_epoch=False'):
        pair(plain(), other(param_scheduler=schedule))


def test_a_schedule_of_fixed_length_is_refused_unless_both_are_as_long():
    schedule = [dict(type='OneCycleLR', eta_max=0.1, total_steps=200, by_epoch=False)]
    text = r'OneCycleLR over total_steps=200, .* from 200 to 100 iterations: .*max_iters=100'
    with pytest.raises(ValueError, match=text):
        pair(plain(), other(param_scheduler=schedule))
    paired = pair(plain(iters=200), other(param_scheduler=schedule))
    assert paired.param_scheduler.teacher == schedule
