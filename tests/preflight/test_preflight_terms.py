"""Whom each loss updates."""

import pytest
import torch
from factory import SIZE, raw_batch
from method_cases import METHOD, VARIANTS
from method_models import build, network
from mmengine.optim import build_optim_wrapper

from mmseg_adm.models.methods import KD
from mmseg_adm.preflight import Report, teachers
from mmseg_adm.preflight.overview import describe_methods
from mmseg_adm.preflight.terms import check_terms, try_step

pytestmark = pytest.mark.core

PAIR = dict(student=network(4, classes=19), teacher=network(8, classes=19))


@pytest.fixture(autouse=True)
def ignorant_teachers(monkeypatch):
    monkeypatch.setattr(teachers, 'MARGIN', -10)


def terms_of(report, owner=METHOD):
    return {term.name: term for term in report.terms if term.owner == owner}


def texts(report, status):
    return [check.text for check in report.checks if check.status == status]


@pytest.mark.parametrize('variant', VARIANTS, ids=str)
def test_every_method_updates_whom_it_says(variant):
    model = build(variant)
    wrapper = build_optim_wrapper(model, dict(optimizer=dict(type='SGD', lr=0.1)))
    data = model.data_preprocessor(raw_batch(), True)
    report = Report(methods=describe_methods(model, SIZE, {}))
    step = try_step(model, data, wrapper)
    check_terms(model, step, report)
    assert report.failed == []

    report.terms = step.terms
    found = terms_of(report)
    assert found.keys() == variant.terms.keys()
    for name, term in variant.terms.items():
        assert set(found[name].updates + found[name].silent) == set(term.updates)
        # SwitOKD's teacher may pause on this batch.
        assert found[name].updates or any(model.methods[METHOD].paused.values())
    for member in model.members:
        assert terms_of(report, member)['decode.loss_ce'].updates == (member,)
    (method,) = report.methods
    reads = model.methods[METHOD].reads().items()
    assert [each.partition(' ')[0] for each in method.readings] == [
        f'{member}.{point}' for member, own in reads for point in own
    ]
    assert step.activations > 0


def test_a_target_that_is_not_detached(inspect, monkeypatch):
    def forward(self, step):
        student, teacher = (step.read(name, 'logits') for name in ('student', 'teacher'))
        return {'loss_kl': (student - teacher).square().mean()}

    monkeypatch.setattr(KD, 'forward', forward)
    report = inspect(build(dict(type='mmseg_adm.KD'), **PAIR))
    (line,) = report.failed
    assert line.text == (
        'method.loss_kl trains teacher, but KD.updates() names student: detach the target'
    )
    assert terms_of(report)['loss_kl'].updates == ('student', 'teacher')


def test_a_term_without_gradient(inspect, monkeypatch):
    forward = KD.forward

    def detached(self, step):
        return {name: value.detach() for name, value in forward(self, step).items()}

    monkeypatch.setattr(KD, 'forward', detached)
    failed = [check.text for check in inspect(build(dict(type='mmseg_adm.KD'), **PAIR)).failed]
    assert any('method.loss_kl trains nobody' in text for text in failed)
    assert any("no term of 'method' reaches student, which KD.updates()" in text for text in failed)


def test_a_member_that_no_term_reaches(inspect, monkeypatch):
    monkeypatch.setattr(KD, 'updates', lambda self: ('student', 'teacher'))
    (line,) = inspect(build(dict(type='mmseg_adm.KD'), **PAIR)).failed
    assert line.text == "no term of 'method' reaches teacher, which KD.updates() names"


def test_a_weight_of_zero_is_a_warning(inspect):
    report = inspect(build(dict(type='mmseg_adm.KD', weight=0.0), **PAIR))
    assert report.failed == []
    (text,) = texts(report, 'warning')
    assert text.startswith('the gradient of method.loss_kl is zero')
    assert terms_of(report)['loss_kl'].silent == ('student',)


def test_a_loss_that_is_not_finite(inspect, monkeypatch):
    forward = KD.forward

    def broken(self, step):
        return {name: value * torch.nan for name, value in forward(self, step).items()}

    monkeypatch.setattr(KD, 'forward', broken)
    (line,) = inspect(build(dict(type='mmseg_adm.KD'), **PAIR)).failed
    assert line.text == 'method.loss_kl is nan on the first images'


def test_parameters_without_gradient(inspect):
    model = build(dict(type='mmseg_adm.KD'), **PAIR)
    model.members['student'].spare = torch.nn.Linear(2, 2)
    (text,) = texts(inspect(model), 'warning')
    assert text.startswith("2 parameters of 'student' get no gradient from any loss (spare.weight")
    assert 'find_unused_parameters=True' in text


def test_a_step_that_cannot_be_tried_does_not_stop_the_run(inspect, monkeypatch):
    def forward(self, step):
        raise RuntimeError('only at full size')

    monkeypatch.setattr(KD, 'forward', forward)
    report = inspect(build(dict(type='mmseg_adm.KD'), **PAIR))
    assert report.failed == []
    assert 'RuntimeError: only at full size' in texts(report, 'warning')
    assert report.terms == []


def test_a_method_that_starts_later_is_tried_too(inspect):
    model = build(dict(type='mmseg_adm.KD'), **PAIR)
    model.methods[METHOD].strength = 0.0
    assert terms_of(inspect(model))['loss_kl'].updates == ('student',)
    assert model.methods[METHOD].strength == 0.0


def test_losses_that_are_maps(inspect):
    """With a sampler of pixels mmseg's losses stay maps until MMEngine sums them."""
    student = network(4, classes=19)
    student['decode_head']['sampler'] = dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100)
    report = inspect(build(dict(type='mmseg_adm.KD'), student, PAIR['teacher']))
    assert {check.status for check in report.checks} == {'ok'}
    assert terms_of(report, 'student')['decode.loss_ce'].updates == ('student',)


def test_large_images_are_scaled_down(inspect, monkeypatch):
    sizes = []
    forward = KD.forward

    def watched(self, step):
        sizes.append(tuple(step.labels.shape))
        return forward(self, step)

    monkeypatch.setattr(KD, 'forward', watched)
    model = build(dict(type='mmseg_adm.KD'), **PAIR, data_preprocessor=dict(
        type='SegDataPreProcessor', size=(512, 1024), seg_pad_val=255))  # fmt: skip
    report = inspect(model)
    assert report.crop == (512, 1024)
    assert sizes == [(1, 512, 1024), (2, 192, 352)]
    assert report.methods[0].readings[0] == 'student.logits 19x64x128'
    assert '2 images of 192x352, scaled by pixels to 2 of 512x1024' in report.memory.basis


def test_a_bridge_is_tried_and_left_as_it_was(inspect):
    variant = next(each for each in VARIANTS if each.members == 'bridge')
    model = build(variant, **PAIR)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = inspect(model)
    roles = {member.name: member.role for member in report.members}
    assert roles == {
        'student': 'trained', 'teacher': 'frozen', 'bridge': 'trained, bridge on teacher',
    }  # fmt: skip
    after = model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
