"""Schedules that do not end with the run."""

import pytest
from mmengine.config import Config

from mmseg_adm.preflight import Report
from mmseg_adm.preflight.schedules import check_schedules

pytestmark = pytest.mark.core

WARM_UP = dict(type='LinearLR', start_factor=0.1, begin=0, end=1500, by_epoch=False)
POLY = dict(type='PolyLR', eta_min=1e-4, begin=0, end=80000, by_epoch=False)
POLY_AFTER = POLY | dict(begin=1500)
COSINE = dict(type='CosineAnnealingLR', begin=1500, end=80000, T_max=78500, by_epoch=False)
ONE_CYCLE = dict(type='OneCycleLR', eta_max=0.1, total_steps=80000, by_epoch=False)
STEPS = dict(type='MultiStepLR', milestones=[40000, 60000], end=80000, by_epoch=False)
STEP = dict(type='MultiStepLR', milestones=[40000, 60000], by_epoch=False)
EPOCHS = dict(type='PolyLR', begin=0, end=12, by_epoch=True)


def line_of(schedules, **loop):
    report = Report()
    check_schedules(Config(dict(train_cfg=loop, param_scheduler=schedules)), report)
    (line,) = report.checks or [None]
    return line


def options_of(schedules, **loop):
    line = line_of(schedules, **loop)
    assert line.status == 'warning'
    return line.text.partition(': --cfg-options ')[2].split()


def test_the_line_says_what_is_wrong_and_what_to_set():
    line = line_of([POLY], max_iters=100)
    assert (line.name, line.status) == ('schedules', 'warning')
    assert line.text == (
        'param_scheduler.0.end is 80000, but the run has 100 iterations: '
        '--cfg-options param_scheduler.0.end=100'
    )


@pytest.mark.parametrize(
    ('schedules', 'options'),
    [
        ([POLY], ['0.end=100']),
        (POLY, ['end=100']),
        (dict(teacher=[POLY], rest=[POLY]), ['teacher.0.end=100', 'rest.0.end=100']),
        (dict(teacher=POLY, rest=[POLY | dict(end=100)]), ['teacher.end=100']),
        # What begins after the end is brought into the run with what comes before it.
        ([WARM_UP, POLY_AFTER], ['0.end=2', '1.begin=2', '1.end=100']),
        ([WARM_UP, COSINE], ['0.end=2', '1.begin=2', '1.end=100', '1.T_max=98']),
        ([COSINE | dict(begin=0, end=100)], ['0.T_max=100']),
        ([ONE_CYCLE], ['0.total_steps=100']),
        ([STEPS], ['0.end=100', '0.milestones=[50,75]']),
        ([STEP], ['0.milestones=...']),
        ([WARM_UP], ['0.end=100']),
    ],
)  # fmt: skip
def test_schedules_of_a_longer_run(schedules, options):
    assert options_of(schedules, max_iters=100) == [f'param_scheduler.{each}' for each in options]


@pytest.mark.parametrize(
    ('schedules', 'options'),
    [
        ([POLY], ['0.end=160000']),
        # A warm-up keeps its length.
        ([WARM_UP, POLY_AFTER], ['1.end=160000']),
        ([WARM_UP, COSINE], ['1.end=160000', '1.T_max=158500']),
        ([POLY, dict(type='PolyMomentum', end=160000, by_epoch=False)], ['0.end=160000']),
    ],
)
def test_schedules_of_a_shorter_run(schedules, options):
    wanted = [f'param_scheduler.{each}' for each in options]
    assert options_of(schedules, max_iters=160000) == wanted


@pytest.mark.parametrize(
    'schedules',
    [
        [POLY],
        [WARM_UP, POLY_AFTER],
        [WARM_UP, COSINE],
        [WARM_UP, COSINE | dict(T_max=80000)],
        [ONE_CYCLE],
        [STEPS],
        [STEP],
        [WARM_UP],
        [dict(type='PolyLR', by_epoch=False)],
        [POLY | dict(end=40000), POLY | dict(begin=40000)],
        dict(student=[POLY], rest=POLY),
    ],
)
def test_schedules_that_end_with_the_run(schedules):
    line = line_of(schedules, max_iters=80000)
    assert (line.status, line.text) == ('ok', 'end with the run, after 80000 iterations')


def test_what_it_names_puts_it_right():
    schedules = dict(student=[WARM_UP, COSINE], rest=[WARM_UP, POLY_AFTER])
    config = Config(dict(train_cfg=dict(max_iters=700), param_scheduler=schedules))
    options = dict(each.split('=') for each in options_of(schedules, max_iters=700))
    config.merge_from_dict({key: int(value) for key, value in options.items()})
    assert line_of(config.param_scheduler, max_iters=700).status == 'ok'


def test_epochs():
    assert line_of([EPOCHS], max_epochs=12).text == 'end with the run, after 12 epochs'
    assert options_of([EPOCHS], max_epochs=3) == ['param_scheduler.0.end=3']
    converted = EPOCHS | dict(convert_to_iter_based=True)
    assert options_of([converted], max_epochs=3) == ['param_scheduler.0.end=3']
    # An iteration loop is one epoch: the rate would stay as it is.
    assert options_of([EPOCHS], max_iters=12) == ['param_scheduler.0.by_epoch=False']


@pytest.mark.parametrize(
    ('schedules', 'loop'),
    [
        ([POLY], dict(max_epochs=12)),
        ([EPOCHS | dict(convert_to_iter_based=True)], dict(max_iters=100)),
        (None, dict(max_iters=100)),
        ([POLY], dict(type='OwnLoop')),
    ],
)
def test_what_cannot_be_compared_is_left_out(schedules, loop):
    assert line_of(schedules, **loop) is None
