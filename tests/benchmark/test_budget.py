"""What rows cost, and rows that are as long as a budget lets them."""

import math

import pytest
import torch
from factory import CLASSES, SIZE, build, distiller_config, segmentor
from plans import PAIR, SETTING, TRAINING, shipped, write_plan

from mmseg_adm.benchmark import read_plan
from mmseg_adm.benchmark.cost import multiply_adds
from mmseg_adm.config import options_for_length, read_config
from mmseg_adm.models.flops import count_flops

LONG = TRAINING | {
    'train_cfg.max_iters': 200, 'train_cfg.val_interval': 50, 'param_scheduler.0.end': 200,
    'default_hooks.checkpoint.interval': 100,
}  # fmt: skip
TIMES = dict(kd=dict(start=50, ramp='linear', ramp_iters=20, stop=150))
SCHEDULED = {'default_hooks.schedule.schedules': TIMES}


@pytest.fixture(scope='module')
def forward():
    """Multiply-adds of student and teacher on one crop, counted by themselves."""
    found = {}
    for name, width in (('student', 16), ('teacher', 32)):
        config = read_config(f'mmseg_adm::pspnet/pspnet_r18-w{width}-d8_{SETTING}')
        found[name] = count_flops(build(config.model), (96, 128))
    return found


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    """Of a plan with every kind of row."""
    methods = {
        **shipped('dml', 'kd'),
        'late': dict(config=shipped('kd')['kd'], cfg_options=SCHEDULED),
        'student-longer': dict(config='student', fills_budget=True),
        'kd-filling': dict(config='kd', fills_budget=True),
        'late-filling': dict(config=shipped('kd')['kd'], cfg_options=SCHEDULED, fills_budget=True),
        'student-800': dict(config='student', iterations=800),
    }
    folder = tmp_path_factory.mktemp('plan')
    path = write_plan(folder, methods, (0, 1), LONG, budget='dml')
    with path.open('a') as file:
        file.write(
            "pairs['given'] = dict(pairs['tiny'], teacher_is_given=True, methods=dict("
            "dml='dml', kd=dict(config='kd', fills_budget=True)))\n"
        )
    return {row.key: row for row in read_plan(path).rows}


def test_a_row_costs_what_its_networks_do(rows, forward):
    student, teacher, images = forward['student'], forward['teacher'], 2 * 200
    assert multiply_adds(rows['tiny/student']) == 3 * student * images
    assert multiply_adds(rows['tiny/dml']) == 3 * (student + teacher) * images
    # A frozen teacher runs forward alone, and where a method reads it.
    assert multiply_adds(rows['tiny/kd']) == (3 * student + teacher) * images
    assert multiply_adds(rows['tiny/late']) == (3 * student + teacher / 2) * images
    assert multiply_adds(rows['tiny/kd'], processes=4) == 4 * multiply_adds(rows['tiny/kd'])


def test_rows_that_fill_a_budget_cost_what_it_is_but_for_less_than_an_iteration(rows, forward):
    student, teacher = forward['student'], forward['teacher']
    budget = 3 * (student + teacher) * 200
    assert rows['tiny/student-longer'].iterations == math.floor(budget / (3 * student))
    # What the training of its teacher leaves.
    left = budget - 3 * teacher * 200
    assert rows['tiny/kd-filling'].iterations == math.floor(left / (3 * student + teacher))
    assert rows['given/kd'].iterations == math.floor(budget / (3 * student + teacher))
    for name in ('tiny/student-longer', 'given/kd'):
        row = rows[name]
        assert 0 <= 2 * budget - multiply_adds(row) < multiply_adds(row) / row.iterations


def test_schedules_follow_the_length(rows):
    config = rows['tiny/student-longer'].resolved()
    length = config.train_cfg.max_iters
    assert length == config.param_scheduler[0].end > 800
    assert length // config.train_cfg.val_interval >= 8
    assert 300 < config.default_hooks.checkpoint.interval < length
    row = rows['tiny/late-filling']
    times = row.resolved().default_hooks.schedule.schedules.kd
    share = row.iterations / 200
    assert times == dict(start=round(50 * share), ramp='linear', ramp_iters=round(20 * share),
                         stop=round(150 * share))  # fmt: skip


def test_a_length_may_be_given(rows):
    config = rows['tiny/student-800'].resolved()
    assert (config.train_cfg.max_iters, config.param_scheduler[0].end) == (800, 800)
    assert config.train_cfg.val_interval == 100


def test_pairs_that_share_a_row_train_it_once(tmp_path):
    path = write_plan(tmp_path, shipped('kd'), (0, 1))
    with path.open('a') as file:
        file.write("pairs['given'] = dict(pairs['tiny'], teacher_is_given=True)\n")
    plan = read_plan(path)
    assert [cell.key for cell in plan.cells][3:6] == ['given/student/0', 'given/teacher/0',
                                                     'given/kd/0']  # fmt: skip
    assert {cell.row.pair for cell in plan.trainings.values()} == {'tiny'}
    assert len(plan.trainings) == 6
    assert plan.teacher_of(plan.cells[5]).key == 'tiny/teacher/0'


def test_bridges_are_counted_without_what_they_share(tmp_path):
    members = dict(
        student=segmentor(4),
        teacher=segmentor(8, frozen=True, checkpoint=str(tmp_path / 'teacher.pth')),
        bridge=dict(type='mmseg_adm.TeacherBridge'),
    )
    torch.save({'state_dict': build(segmentor(8)).state_dict()}, tmp_path / 'teacher.pth')
    model = build(distiller_config(members=members))
    whole, bridge = (count_flops(model.network(name), SIZE) for name in ('teacher', 'bridge'))
    last_stage_and_head = sum(
        count_flops_of(model.network('bridge'), name) for name in ('backbone.layer4', 'decode_head')
    )
    assert bridge == last_stage_and_head < whole


def count_flops_of(network, prefix: str) -> float:
    """What MMEngine counts below one module, by a trace of its own."""
    from mmengine.analysis import FlopAnalyzer

    analyzer = FlopAnalyzer(network.eval(), (torch.zeros(1, 3, *SIZE),))
    return analyzer.unsupported_ops_warnings(False).by_module()[prefix]


def test_auxiliary_heads_count_where_they_run():
    network = build(segmentor(4, auxiliary=True))
    plain = count_flops(build(segmentor(4)), SIZE)
    assert count_flops(network, SIZE) == plain
    # One 3x3 convolution from 16 to 8 channels and the classifier, on maps of an eighth; the
    # normalization counts two a value.
    height, width = SIZE[0] // 8, SIZE[1] // 8
    expected = height * width * (9 * 16 * 8 + 8 * CLASSES)
    step = count_flops(network, SIZE, training=True)
    assert step / 3 - plain == pytest.approx(expected, rel=0.02)


def test_frozen_first_layers_count_once():
    network = build(segmentor(4))
    whole = count_flops(network, SIZE, training=True)
    for module in (network.backbone.stem, network.backbone.layer1):
        module.requires_grad_(False)
    frozen = sum(count_flops_of(network, f'backbone.{name}') for name in ('stem', 'layer1'))
    # What has no weights, such as ReLU and pooling, is counted as nothing.
    assert whole - count_flops(network, SIZE, training=True) == 2 * frozen > 0
    # Through a frozen layer behind one that trains gradients flow.
    network.backbone.stem.requires_grad_(True)
    assert count_flops(network, SIZE, training=True) == whole


def test_stages_that_a_backbone_freezes_count_once():
    settings = segmentor(4)
    settings['backbone'] |= dict(frozen_stages=1)
    frozen = sum(
        count_flops_of(build(segmentor(4)), f'backbone.{name}') for name in ('stem', 'layer1')
    )
    whole = count_flops(build(segmentor(4)), SIZE, training=True)
    assert whole - count_flops(build(settings), SIZE, training=True) == 2 * frozen


@pytest.mark.parametrize(
    ('methods', 'pair', 'message'),
    [
        (
            {'kd': dict(config='kd', fills_budget=True)}, dict(budget='student'),
            "cell 'tiny/kd': the budget, .* of 'student', leaves less than one iteration: ",
        ),
        ({'kd': dict(config='kd', fills_budget=True)}, {}, 'kd fills a budget, and there is none'),
        ({'dml': 'dml'}, dict(budget='adm'), "budget must be one of .* dml; got 'adm'"),
        (
            {'dml': dict(config='dml', fills_budget=True)}, dict(budget='dml'),
            "budget must be one of its rows that do not fill it, student, teacher; got 'dml'",
        ),
        (
            {'kd': dict(config='kd', fills_budget=True, iterations=3)}, dict(budget='student'),
            "cell 'tiny/kd': iterations or fills_budget, not both",
        ),
        ({'kd': dict(config='kd', iterations=0)}, {}, "cell 'tiny/kd': iterations must be an"),
        (
            {'adm': dict(config='adm', cfg_options={'model.data_preprocessor.size': None}),
             'kd': dict(config='kd', fills_budget=True)}, dict(budget='adm'),
            "cell 'tiny/adm': its multiply-adds cannot be counted, so it can neither be nor fill",
        ),
        (
            {'dml': dict(config=f'configs/dml/dml_{PAIR}_{SETTING}', iterations=3, cfg_options={
                'param_scheduler.0.begin': 3})}, {},
            r"cell 'tiny/dml': param_scheduler\.0 of .* begins at iteration 3, and the training",
        ),
    ],
)  # fmt: skip
def test_impossible_budgets_are_refused_when_the_plan_is_read(methods, pair, message, tmp_path):
    with pytest.raises(ValueError, match=message) as refused:
        read_plan(write_plan(tmp_path, methods, **pair))
    assert '\n' not in str(refused.value)


def test_intervals_keep_to_whole_accumulations():
    config = read_config(f'mmseg_adm::pspnet/pspnet_r18-w16-d8_{SETTING}')
    config.optim_wrapper.accumulative_counts = 4
    config.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=300)
    options = options_for_length(config, 1000)
    assert options['train_cfg.val_interval'] == 124
    assert options['default_hooks.checkpoint.interval'] == 500
    assert 'default_hooks.logger.interval' not in options
    config.default_hooks.logger.interval = 20
    assert options_for_length(config, 17)['default_hooks.logger.interval'] == 17
