"""What a run waits for, and what its validations will have."""

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmseg.evaluation import IoUMetric

from mmseg_adm.config.monitored import check_metrics, check_monitored
from mmseg_adm.config.registered import check_registered
from mmseg_adm.engine import MembersValLoop

pytestmark = pytest.mark.core

IOU = dict(type='IoUMetric', iou_metrics=['mIoU'])
DUMP = dict(type='DumpResults', out_file_path='predictions.pkl')
MEMBERS = dict(student=dict(type='EncoderDecoder'), teacher=dict(type='EncoderDecoder'))
AVERAGE = dict(type='mmseg_adm.EMATeacher')


def waiting(metric, evaluator=IOU, members=MEMBERS, hook='CheckpointHook', **options) -> Config:
    """A distillation config that saves the best by a metric."""
    return Config(
        dict(
            model=dict(type='mmseg_adm.KnowledgeDistiller', members=members),
            val_evaluator=evaluator,
            val_cfg=dict(type='mmseg_adm.MembersValLoop'),
            default_hooks=dict(checkpoint=dict(type=hook, save_best=metric)),
        )
        | options
    )


PREFIXED = dict(IOU, prefix='val')
TWO = [dict(IOU, prefix='val'), dict(type='IoUMetric', iou_metrics=['mDice'], prefix='dice')]
UNKNOWN = dict(type='ScriptedByNobodyMetric')


@pytest.mark.parametrize(
    ('metric', 'evaluator', 'options'),
    [
        ('student/mIoU', IOU, {}),
        ('gap/mIoU', IOU, {}),
        ('agreement', IOU, {}),
        ('auto', IOU, {}),
        (['auto', 'teacher/aAcc'], IOU, {}),
        ('student/val/mIoU', PREFIXED, {}),
        ('gap/val/mIoU', PREFIXED, {}),
        ('student/dice/mDice', TWO, {}),
        ('student/dice/mDice', dict(type='Evaluator', metrics=TWO), {}),
        ('student/dice/mDice', dict(metrics=[*TWO, DUMP]), {}),
        ('student/mIoU', [DUMP, IOU], {}),
        ('student/mIoU', dict(IOU, iou_metrics='mIoU'), {}),
        ('student/mIoU', dict(IOU, type=IoUMetric), {}),
        ('student/mIoU', IOU, dict(hook=CheckpointHook, val_cfg=dict(type=MembersValLoop))),
        ('student/IoU.road', dict(IOU, type='mmseg_adm.ClassIoUMetric'), {}),
        ('student/val/IoU.road', dict(PREFIXED, type='mmseg_adm.ClassIoUMetric'), {}),
        ('student/anything', UNKNOWN, {}),
        ('student/anything', [IoUMetric()], dict(custom_hooks=[EarlyStoppingHook('loss')])),
        ('gap/peer/mIoU', IOU, dict(members=dict(MEMBERS, peer=MEMBERS['student']))),
        ('mean_teacher/mIoU', IOU, dict(members=dict(MEMBERS, mean_teacher=AVERAGE))),
        ('gap/mIoU', IOU, dict(members=dict(MEMBERS, mean_teacher=AVERAGE))),
        ('mIoU', IOU, dict(val_cfg=dict(type='ValLoop'))),
        ('anything', IOU, dict(val_cfg=None, val_evaluator=None)),
    ],
)
def test_what_there_is_may_be_waited_for(metric, evaluator, options):
    check_monitored(waiting(metric, evaluator, **options))


@pytest.mark.parametrize(
    ('metric', 'evaluator', 'options', 'hint'),
    [
        ('mIoU', IOU, {}, "Did you mean 'student/mIoU'"),
        ('val/mIoU', PREFIXED, {}, "Did you mean 'student/val/mIoU'"),
        ('student/mIoU', PREFIXED, {}, "Did you mean 'student/val/mIoU'"),
        ('mIoU', dict(type='Evaluator', metrics=[IOU]), {}, "Did you mean 'student/mIoU'"),
        ('mIoU', dict(IOU, type=IoUMetric), {}, "Did you mean 'student/mIoU'"),
        ('mIoU', UNKNOWN, {}, r"'student/mIoU'.* There are student/\.\.\., teacher/\.\.\.,"),
        ('student/mIoU', DUMP, {}, 'There are agreement'),
        ('IoU.road', dict(IOU, type='mmseg_adm.ClassIoUMetric'), {}, 'There are student/aAcc'),
        ('agreement', IOU, dict(val_cfg=dict(type=MembersValLoop, agreement=False)), 'There are'),
        ('gap/mean_teacher/mIoU', IOU, dict(members=dict(MEMBERS, mean_teacher=AVERAGE)), 'gap/mI'),
        ('student/mIoU', IOU, dict(val_cfg=dict(type='ValLoop')), "Did you mean 'mIoU'"),
    ],
)  # fmt: skip
def test_what_there_is_not_is_refused_with_what_is_meant(metric, evaluator, options, hint):
    text = rf"default_hooks\.checkpoint\.save_best is '{metric}', which no validation has\..*{hint}"
    with pytest.raises(ValueError, match=text):
        check_monitored(waiting(metric, evaluator, **options))


@pytest.mark.parametrize(
    ('options', 'path'),
    [
        (
            dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor='mIoU')]),
            'custom_hooks.0.monitor',
        ),
        (
            dict(param_scheduler=[dict(type='ReduceOnPlateauLR', monitor='mIoU')]),
            'param_scheduler.0.monitor',
        ),
        (
            dict(param_scheduler=dict(rest=dict(type='ReduceOnPlateauLR', monitor='mIoU'))),
            'param_scheduler.rest.monitor',
        ),
    ],
)
def test_all_that_waits_is_looked_at(options, path):
    with pytest.raises(ValueError, match=f"{path} is 'mIoU', .* mean 'student/mIoU'"):
        check_monitored(waiting('student/mIoU', **options))


def test_what_a_hook_of_ones_own_monitors_need_not_be_a_metric():
    hooks = [dict(type='ProfilerHook', monitor='loss'), dict(type='HookOfNobody', save_best='loss')]
    check_monitored(waiting('student/mIoU', custom_hooks=hooks))


@pytest.mark.parametrize('asked', ['mIuO', ['mIoU', 'mIuO']])
def test_an_unknown_mean_is_refused_inside_an_evaluator_too(asked):
    config = waiting('student/mIoU', dict(metrics=[DUMP, dict(IOU, iou_metrics=asked)]))
    text = r'val_evaluator\.metrics\.1\.iou_metrics must be some of mIoU, mDice, mFscore, got'
    with pytest.raises(ValueError, match=text):
        check_metrics(config, ('val',))


def test_metrics_inside_an_evaluator_are_looked_up():
    config = waiting('student/mIoU', dict(type='Evaluator', metrics=[IOU, dict(type='IoUMetrik')]))
    with pytest.raises(ValueError, match=r"val_evaluator\.metrics\.1: no metric .* 'IoUMetric'"):
        check_registered(config, ('val',))
    config.val_evaluator.metrics.pop()
    check_registered(config, ('val',))
