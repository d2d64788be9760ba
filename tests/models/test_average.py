import copy

import pytest
import torch
from factory import (
    build,
    distiller_config,
    losses_of,
    preprocessor,
    raw_batch,
    save_segmentor,
    segmentor,
)
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from torch.testing import assert_close

pytestmark = pytest.mark.core

MOMENTUM = 0.25
METHODS = dict(kd=dict(type='mmseg_adm.KD', teacher='mean_teacher'))


def config_of(methods=METHODS, average=(), **members):
    average = dict(type='mmseg_adm.EMATeacher', momentum=MOMENTUM) | dict(average)
    networks = dict(student=segmentor(4), teacher=segmentor(8, auxiliary=True)) | members
    return distiller_config(methods, members=networks | dict(mean_teacher=average))


def distiller(*args, **options):
    return build(config_of(*args, **options)).train()


def weights_of(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def shift(network, by=0.5):
    """What an optimizer and the statistics of a batch might do."""
    with torch.no_grad():
        for value in network.state_dict().values():
            value += torch.tensor(by).to(value.dtype)


def mixed(before, after):
    """The formula, but for counters of batches, which stay."""
    return {
        key: (1 - MOMENTUM) * before[key] + MOMENTUM * value if value.is_floating_point()
        else before[key]
        for key, value in after.items()
    }  # fmt: skip


def average_of(model):
    return model.network('mean_teacher')


def test_it_starts_as_the_member_and_follows_it():
    model = distiller()
    assert average_of(model) is not model.network('teacher')
    present = weights_of(model.network('teacher'))
    losses_of(model)
    assert_close(weights_of(average_of(model)), present)
    for _ in range(2):
        expected = weights_of(average_of(model))
        shift(model.network('teacher'))
        expected = mixed(expected, weights_of(model.network('teacher')))
        losses_of(model)
        assert_close(weights_of(average_of(model)), expected)


def test_before_the_first_batch_it_is_the_member():
    model = build(config_of())
    model.init_weights()
    assert_close(weights_of(average_of(model)), weights_of(model.network('teacher')))


def test_a_first_batch_that_is_undone_did_not_count():
    model = distiller()
    average = model.averages['mean_teacher']
    before = weights_of(average)
    losses_of(model)
    average.load_state_dict(before)
    shift(model.network('teacher'))
    present = weights_of(model.network('teacher'))
    losses_of(model)
    assert_close(weights_of(average.module), present)


@pytest.mark.parametrize('change', [copy.deepcopy, lambda model: model.double().float()],
                         ids=['copied', 'moved'])  # fmt: skip
def test_it_follows_after_it_was(change):
    model = distiller()
    losses_of(model)
    model = change(model)
    expected = weights_of(average_of(model))
    shift(model.network('teacher'))
    expected = mixed(expected, weights_of(model.network('teacher')))
    losses_of(model)
    assert_close(weights_of(average_of(model)), expected)


def test_it_does_not_follow_in_evaluation():
    model = distiller()
    losses_of(model)
    before = weights_of(average_of(model))
    shift(model.network('teacher'))
    model.eval()
    losses_of(model)
    model.predict_members(raw_batch(), model.member_names)
    assert_close(weights_of(average_of(model)), before, rtol=0, atol=0)


def test_it_teaches_as_in_evaluation(tmp_path):
    model = distiller()
    torch.manual_seed(5)
    loss = losses_of(model)['kd.loss_kl']
    assert not any(module.training for module in average_of(model).modules())
    # The same weights, frozen in the teacher's place.
    path = tmp_path / 'teacher.pth'
    torch.save({'state_dict': weights_of(average_of(model))}, path)
    members = dict(student=segmentor(4), teacher=segmentor(8, frozen=True, checkpoint=str(path)))
    frozen = build(distiller_config(dict(kd=dict(type='mmseg_adm.KD')), members=members)).train()
    frozen.network('student').load_state_dict(model.network('student').state_dict())
    torch.manual_seed(5)
    assert_close(losses_of(frozen)['kd.loss_kl'], loss)


def test_it_moves_with_its_member_alone():
    model = distiller()
    optimizer = dict(type='AdamW', lr=0.1, weight_decay=0.5)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=optimizer))
    losses_of(model)
    before = weights_of(average_of(model))
    student = weights_of(model.network('student'))
    present = weights_of(model.network('teacher'))
    model.train_step(raw_batch(), wrapper)
    # The step began with the member as it was; weight decay would move what an optimizer holds.
    assert all(each.grad is None for each in average_of(model).parameters())
    assert_close(weights_of(average_of(model)), mixed(before, present))
    for name, old in (('student', student), ('teacher', present)):
        key = 'decode_head.conv_seg.weight'
        assert not torch.equal(weights_of(model.network(name))[key], old[key])


def test_it_follows_once_a_batch_also_between_steps():
    model = distiller()
    losses_of(model)
    expected = weights_of(average_of(model))
    shift(model.network('teacher'))
    for _ in range(3):
        expected = mixed(expected, weights_of(model.network('teacher')))
        losses_of(model)
    parameters = dict(average_of(model).named_parameters())
    assert_close(parameters, {key: expected[key] for key in parameters})


def test_it_changes_nothing_of_the_others():
    members = dict(student=segmentor(4), teacher=segmentor(8, auxiliary=True))
    without = build(distiller_config({}, members=members)).train()
    model = distiller({})
    for name in members:
        assert_close(weights_of(model.network(name)), weights_of(without.network(name)))
    torch.manual_seed(0)
    expected = losses_of(without)
    torch.manual_seed(0)
    assert_close(losses_of(model), expected)


def test_it_is_saved_with_the_run():
    model = distiller()
    losses_of(model)
    shift(model.network('teacher'))
    losses_of(model)
    other = build(config_of(), seed=7).train()
    other.load_state_dict(model.state_dict())
    for each in (model, other):
        shift(each.network('teacher'))
        losses_of(each)
    assert_close(weights_of(average_of(other)), weights_of(average_of(model)))


def test_it_is_averaged_with_the_run():
    model = distiller()
    losses_of(model)
    averaged = ExponentialMovingAverage(model, momentum=0.5)
    expected = {}
    for _ in range(2):
        shift(model.network('teacher'))
        losses_of(model)
        averaged.update_parameters(model)
        for key, value in average_of(model).named_parameters():
            last = expected.get(key, value)
            expected[key] = (0.5 * last + 0.5 * value).detach()
    assert_close(dict(average_of(averaged.module).named_parameters()), expected)
    # Nothing is kept twice.
    assert not averaged.module.averages['mean_teacher'].avg_parameters


def test_it_sees_what_its_member_sees():
    other = dict(preprocessor(), mean=[100.0, 110.0, 120.0], std=[30.0, 40.0, 50.0])
    model = distiller(teacher=segmentor(8, data_preprocessor=other))
    inputs = model.data_preprocessor(raw_batch(), True)['inputs']
    assert_close(inputs['mean_teacher'], inputs['teacher'])
    assert not torch.equal(inputs['mean_teacher'], inputs[None])


def test_a_student_may_learn_from_its_own():
    model = distiller(dict(kd=dict(type='mmseg_adm.KD', teacher='mean_teacher')),
                      average=dict(of='student'))  # fmt: skip
    assert losses_of(model)['kd.loss_kl'] > 0  # one with dropout, the other without
    parameters = [dict(network.named_parameters())
                  for network in (average_of(model), model.network('student'))]  # fmt: skip
    assert_close(*parameters)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(decay=0.9), r"member 'mean_teacher' .* no option 'decay'. Its options: of, momentum"),
        (dict(of='tutor'), "follows 'tutor', which is not a member in training: student, teacher"),
        (dict(of='mean_teacher'), "follows 'mean_teacher', which is not a member in training"),
        (dict(data_preprocessor=preprocessor()), "no option 'data_preprocessor'"),
        (dict(momentum=1.0), r'momentum must be in \(0, 1\), got 1.0'),
        (dict(momentum=0), r'momentum must be in \(0, 1\), got 0'),
        (dict(momentum='0.1'), r"momentum must be in \(0, 1\), got '0.1'"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        distiller(average=options)


def test_a_frozen_member_has_no_average(tmp_path):
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', segmentor(8))
    frozen = segmentor(8, frozen=True, checkpoint=checkpoint)
    with pytest.raises(ValueError, match="'teacher', which is not a member in training: student"):
        distiller(teacher=frozen)


def test_nobody_trains_it():
    dml = dict(type='mmseg_adm.DML', members=('student', 'mean_teacher'))
    with pytest.raises(ValueError, match="'mean_teacher', which is an EMA teacher"):
        distiller(dict(dml=dml))


def test_it_is_not_what_is_deployed():
    with pytest.raises(ValueError, match="student='mean_teacher' is an EMA teacher: name the"):
        build(dict(config_of(), student='mean_teacher'))


def test_a_bridge_has_no_average(tmp_path):
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', segmentor(8))
    members = dict(
        teacher=segmentor(8, frozen=True, checkpoint=checkpoint),
        bridge=dict(type='mmseg_adm.TeacherBridge'),
    )
    with pytest.raises(ValueError, match="'bridge' is a bridge, which is not averaged"):
        distiller({}, average=dict(of='bridge'), **members)


def test_a_member_may_start_from_the_average_of_a_run(tmp_path):
    model = distiller()
    losses_of(model)
    shift(model.network('teacher'), by=0.01)
    losses_of(model)
    path = tmp_path / 'run.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    members = dict(
        student=segmentor(4),
        mean_teacher=segmentor(8, auxiliary=True, checkpoint=str(path)),
    )
    methods = dict(kd=dict(type='mmseg_adm.KD', teacher='mean_teacher'))
    other = build(distiller_config(methods, members=members))
    assert_close(weights_of(other.network('mean_teacher')), weights_of(average_of(model)))
