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
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch.testing import assert_close

pytestmark = pytest.mark.core

MOMENTUM = 0.25
METHODS = dict(kd=dict(type='mmseg_adm.KD', teacher='mean_teacher'))


def config_of(methods=METHODS, average=(), **members):
    average = dict(type='mmseg_adm.MovingAverage', momentum=MOMENTUM) | dict(average)
    networks = dict(student=segmentor(4), teacher=segmentor(8, auxiliary=True)) | members
    return distiller_config(methods, members=networks | dict(mean_teacher=average))


def distiller(*args, **options):
    return build(config_of(*args, **options)).train()


def weights_of(network):
    return {key: value.clone() for key, value in network.state_dict().items()}


def shift(network, by=0.5):
    """What an optimiser and the statistics of a batch might do."""
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


def test_no_gradient_reaches_it_and_no_optimiser_holds_it():
    model = distiller()
    wrapper = build_optim_wrapper(
        model, dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    )
    assert isinstance(wrapper, OptimWrapper)
    sum(value for key, value in losses_of(model).items() if 'loss' in key).backward()
    parameters = list(average_of(model).parameters())
    assert all(each.grad is None and not each.requires_grad for each in parameters)
    held = {id(each) for group in wrapper.param_groups for each in group['params']
            if each.requires_grad}  # fmt: skip
    assert not held & set(map(id, parameters))
    assert model.network('student').decode_head.conv_seg.weight.grad.abs().sum() > 0
    # KD from the average alone: the teacher learns from its own labels.
    assert model.network('teacher').decode_head.conv_seg.weight.grad is not None


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
    shift(model.network('teacher'))
    losses_of(model)
    averaged.update_parameters(model)
    assert_close(weights_of(average_of(averaged.module)), weights_of(average_of(model)))


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
    with pytest.raises(ValueError, match="it trains 'mean_teacher', which is frozen"):
        distiller(dict(dml=dml))
