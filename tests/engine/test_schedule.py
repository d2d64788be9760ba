from itertools import pairwise

import pytest
import torch
from factory import ROOT, build, demo_config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.engine import DistillScheduleHook
from mmseg_adm.engine.hooks.schedule import method_strength
from mmseg_adm.export import plain_config

OFFLINE = ROOT / (
    'configs/adm/adm-offline_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
)
# Strengths of iterations 0 to 7.
TABLE = [
    (dict(), [1, 1, 1, 1, 1, 1, 1, 1]),
    (dict(start=2), [0, 0, 1, 1, 1, 1, 1, 1]),
    (dict(stop=3), [1, 1, 1, 0, 0, 0, 0, 0]),
    (dict(start=1, stop=2), [0, 1, 0, 0, 0, 0, 0, 0]),
    (dict(stop=None), [1, 1, 1, 1, 1, 1, 1, 1]),
    (dict(ramp='linear', ramp_iters=4), [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
    (dict(ramp='linear', ramp_iters=1), [1, 1, 1, 1, 1, 1, 1, 1]),
    (dict(start=2, ramp='linear', ramp_iters=4), [0, 0, 0.25, 0.5, 0.75, 1, 1, 1]),
    (dict(start=1, ramp='linear', ramp_iters=10, stop=4), [0, 0.1, 0.2, 0.3, 0, 0, 0, 0]),
    (dict(ramp='cosine', ramp_iters=3), [0.25, 0.75, 1, 1, 1, 1, 1, 1]),
    (
        dict(start=3, ramp='cosine', ramp_iters=4),
        [0, 0, 0, 0.1464466094, 0.5, 0.8535533906, 1, 1],
    ),
    # exp(-5 (1 - x)^2) at x = 1/4, 1/2, 3/4, 1.
    (
        dict(ramp='exponential', ramp_iters=4),
        [0.0600546679, 0.2865047969, 0.7316156289, 1, 1, 1, 1, 1],
    ),
    (
        dict(start=1, ramp='exponential', ramp_iters=2, stop=4),
        [0, 0.2865047969, 1, 1, 0, 0, 0, 0],
    ),
]


class Strengths(Hook):
    """Notes each method's strength and what was logged, by iteration."""

    def __init__(self):
        self.strengths = []
        self.logged = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        methods = runner.model.methods.items()
        self.strengths.append({name: method.strength for name, method in methods})
        self.logged.append({name: float(value) for name, value in outputs.items()})


@pytest.mark.parametrize(('options', 'expected'), TABLE)
def test_method_strength(options, expected):
    found = [method_strength(iteration, **options) for iteration in range(8)]
    assert found == pytest.approx(expected, abs=1e-9)


def run(config):
    runner = Runner.from_cfg(config)
    strengths = Strengths()
    runner.register_hook(strengths)
    return runner, strengths


def test_strengths_in_a_run(city, tmp_path):
    schedules = dict(adm=dict(start=1, ramp='linear', ramp_iters=4, stop=4), dml=dict(start=3))
    config = demo_config(
        city, tmp_path, iters=5, train_cfg__val_begin=1000,
        default_hooks__schedule__schedules=schedules,
    )  # fmt: skip
    runner, seen = run(config)
    runner.train()
    assert [each['adm'] for each in seen.strengths] == [0, 0.25, 0.5, 0.75, 0]
    assert [each['dml'] for each in seen.strengths] == [0, 0, 0, 1, 1]
    for strengths, logged in zip(seen.strengths, seen.logged, strict=True):
        for method, strength in strengths.items():
            assert any(name.startswith(f'{method}.') for name in logged) == (strength > 0)


def test_methods_without_a_schedule_run_at_full_strength(city, tmp_path):
    config = demo_config(
        city, tmp_path, iters=1, train_cfg__val_begin=1000,
        default_hooks__schedule__schedules=dict(adm=dict(start=1)),
    )  # fmt: skip
    runner, seen = run(config)
    runner.model.methods['dml'].strength = 0.3
    runner.train()
    assert seen.strengths == [{'dml': 1, 'adm': 0}]


def test_the_strength_scales_the_losses_alone(city, tmp_path):
    logged = []
    for ramp_iters in (1, 4):
        ramp = dict(ramp='linear', ramp_iters=ramp_iters)
        config = demo_config(
            city, tmp_path, iters=1, train_cfg__val_begin=1000,
            default_hooks__schedule__schedules=dict(adm=ramp),
        )  # fmt: skip
        runner, seen = run(config)
        runner.train()
        logged += seen.logged
    full, quarter = logged
    for name, value in full.items():
        if name != 'loss':
            factor = 0.25 if name.startswith('adm.loss') else 1
            assert quarter[name] == pytest.approx(factor * value, rel=1e-5), name


def test_a_frozen_teacher_runs_only_while_a_method_reads_it(city, tmp_path):
    network = plain_config(demo_config(city, tmp_path, config=OFFLINE), 'teacher').model
    torch.save({'state_dict': build(network).state_dict()}, tmp_path / 'teacher.pth')
    schedules = dict(kd=dict(start=1, stop=2), adm=dict(start=2, stop=4))
    config = demo_config(
        city, tmp_path, iters=5, config=OFFLINE, train_cfg__val_begin=1000,
        default_hooks__schedule__schedules=schedules,
        model__members__teacher__checkpoint=str(tmp_path / 'teacher.pth'),
    )  # fmt: skip
    runner, _ = run(config)
    ran_in = []
    teacher = runner.model.network('teacher')
    teacher.backbone.register_forward_hook(lambda *_: ran_in.append(runner.iter))
    runner.train()
    assert ran_in == [1, 2, 3]


class Projections(Hook):
    """Notes ADM's projection before each iteration."""

    def __init__(self):
        self.weights = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.weights.append(runner.model.methods['adm'].projection.weight.detach().clone())


# Over two batches it steps after the iterations 1, 3 and 5.
@pytest.mark.parametrize(('counts', 'moves_in'), [(1, {1, 2}), (2, {1, 3})])
def test_a_method_that_does_not_run_is_left_as_it_is(city, tmp_path, counts, moves_in):
    """Weight decay and momentum would move it: it is in the graph, with a gradient of zero."""
    config = demo_config(
        city, tmp_path, iters=6, train_cfg__val_begin=1000,
        default_hooks__schedule__schedules=dict(adm=dict(start=1, stop=3)),
    )  # fmt: skip
    config.optim_wrapper.accumulative_counts = counts
    runner, _ = run(config)
    projections = Projections()
    runner.register_hook(projections)
    runner.train()
    weights = [*projections.weights, runner.model.methods['adm'].projection.weight]
    moved = {index for index, (before, after) in enumerate(pairwise(weights))
             if not torch.equal(before, after)}  # fmt: skip
    assert moved == moves_in


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(begin=3), "schedule of 'adm' has no option 'begin': start, ramp, ramp_iters, stop"),
        (
            dict(ramp='exp', ramp_iters=3),
            "ramp must be 'linear', 'cosine', 'exponential' or None, got 'e",
        ),
        (dict(ramp='linear'), "schedule of 'adm' has a ramp without ramp_iters"),
        (dict(ramp='linear', ramp_iters=0), 'has a ramp without ramp_iters'),
        (dict(start=-1), 'start must be an integer >= 0, got -1'),
        (dict(start=True), 'start must be an integer >= 0, got True'),
        (dict(start=0.5), 'start must be an integer >= 0, got 0.5'),
        (dict(start=None), 'start must be an integer >= 0, got None'),
        (dict(ramp_iters='3'), "ramp_iters must be an integer >= 0, got '3'"),
        (dict(stop='end'), "stop must be an integer >= 0, got 'end'"),
        (dict(start=5, stop=3), "schedule of 'adm' stops at 3, before it starts at 5"),
        (dict(start=5, stop=5), 'stops at 5, before it starts at 5'),
        (dict(stop=0), 'stops at 0, before it starts at 0'),
    ],
)
def test_impossible_schedules_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        DistillScheduleHook(dict(adm=options))


def test_ramp_iters_without_a_ramp_are_refused():
    with pytest.raises(ValueError, match='ramp_iters without a ramp'):
        DistillScheduleHook(dict(adm=dict(ramp_iters=1000)))


def test_a_schedule_of_an_unknown_method_is_refused(city, tmp_path):
    config = demo_config(
        city, tmp_path, iters=1, default_hooks__schedule__schedules=dict(cwd=dict(start=1))
    )
    with pytest.raises(ValueError, match="schedule for 'cwd', but the methods are: dml, adm"):
        Runner.from_cfg(config).train()
