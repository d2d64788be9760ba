"""Whom each loss updates."""

import pytest
import torch
from factory import SIZE, raw_batch
from method_cases import METHOD, VARIANTS
from method_models import build, network
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.optim import build_optim_wrapper
from torch.utils.checkpoint import checkpoint

from mmseg_adm.models.methods import KD
from mmseg_adm.preflight import Report, data, inspection, memory, teachers
from mmseg_adm.preflight.data import smallest_batch
from mmseg_adm.preflight.overview import describe_methods
from mmseg_adm.preflight.terms import check_terms, find_terms, try_step

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
    batch = model.data_preprocessor(raw_batch(), True)
    report = Report(methods=describe_methods(model, SIZE, {}))
    losses = try_step(model, batch, wrapper)
    step = find_terms(model, losses)
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
    assert losses.activations > 0


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


def test_a_step_that_fails_stops_the_run(inspect, monkeypatch):
    def forward(self, step):
        raise RuntimeError('never')

    monkeypatch.setattr(KD, 'forward', forward)
    report = inspect(build(dict(type='mmseg_adm.KD'), **PAIR))
    assert [(check.name, check.text) for check in report.failed] == [
        (
            'training step',
            'RuntimeError: never. It was tried with a batch of 2 images of 32x48 pixels',
        )
    ]
    assert report.terms == []
    assert report.memory is None


def test_a_step_that_fails_on_small_images_is_tried_on_full_ones(inspect, measured, monkeypatch):
    """A network may be made for one size alone."""
    sizes = []
    forward = KD.forward

    def picky(self, step):
        sizes.append(tuple(step.labels.shape))
        if step.labels.shape[-1] < 128:
            raise RuntimeError('only at full size')
        return forward(self, step)

    monkeypatch.setattr(KD, 'forward', picky)
    monkeypatch.setattr(data, 'MAX_PIXELS', 64 * 64)
    report = inspect(build(dict(type='mmseg_adm.KD'), **PAIR, data_preprocessor=dict(
        type='SegDataPreProcessor', size=(128, 128), seg_pad_val=255)))  # fmt: skip
    assert report.failed == []
    # The first is for the table of methods.
    # The last is measured.
    assert sizes == [(1, 128, 128), (2, 64, 64), (2, 128, 128), (2, 128, 128)]
    assert terms_of(report)['loss_kl'].updates == ('student',)
    assert report.memory.basis == 'Measured in a step of 2 images of 128x128'


def test_losses_that_cannot_be_asked_one_by_one(inspect, measured, monkeypatch):
    """What PyTorch checkpoints has a backward pass, and no gradient of its own."""
    forward = KD.forward

    def checkpointed(self, step):
        values = forward(self, step)
        return {name: checkpoint(torch.square, value, use_reentrant=True)
                for name, value in values.items()}  # fmt: skip

    monkeypatch.setattr(KD, 'forward', checkpointed)
    report = inspect(build(dict(type='mmseg_adm.KD'), **PAIR))
    assert report.failed == []
    assert [check.name for check in report.checks if check.status == 'warning'] == ['terms']
    assert report.memory is not None

    def unsummable(losses):
        raise RuntimeError('no backward pass')

    monkeypatch.setattr(inspection, 'try_backward', unsummable)
    (line,) = inspect(build(dict(type='mmseg_adm.KD'), **PAIR)).failed
    assert (line.name, line.text) == ('training step', 'RuntimeError: no backward pass')


# ----------------------------------------------------------------------------- the batch


@pytest.mark.parametrize(
    ('loader', 'images', 'iterations', 'smallest'),
    [
        (dict(batch_size=4, sampler=dict(type='mmseg_adm.StreamSampler')), 9, 100, 4),
        (dict(batch_size=4, sampler=dict(type='mmseg_adm.StreamSampler')), 9, None, 1),
        (dict(batch_size=4, sampler=dict(type='InfiniteSampler')), 9, 100, 4),
        (dict(batch_size=4, sampler=dict(type='mmengine.InfiniteSampler')), 9, 100, 4),
        (dict(batch_size=4, sampler=dict(type=InfiniteSampler)), 9, None, 4),
        (dict(batch_size=4, sampler=dict(type='DefaultSampler')), 9, None, 1),
        (dict(batch_size=4, sampler=dict(type=DefaultSampler)), 9, 3, 1),
        (dict(batch_size=4, sampler=dict(type='DefaultSampler')), 9, 2, 4),
        (dict(batch_size=4, sampler=dict(type='DefaultSampler')), 8, None, 4),
        (dict(batch_size=4, drop_last=True, sampler=dict(type='DefaultSampler')), 9, None, 4),
        (dict(batch_size=1, sampler=dict(type='mmseg_adm.StreamSampler')), 9, 100, 1),
    ],
)
def test_the_smallest_batch_of_a_training(loader, images, iterations, smallest):
    assert smallest_batch(loader, images, iterations) == smallest


@pytest.mark.parametrize('sampler', ['mmseg_adm.StreamSampler', 'DefaultSampler'])
def test_a_batch_of_one_is_tried_as_one(sampler, inspect):
    """Pooled to one value a channel, it has no statistics; also the last one of an epoch."""
    settings = {'train_dataloader.sampler.type': sampler}
    settings['train_dataloader.batch_size'] = 1 if 'Stream' in sampler else 7
    if sampler == 'DefaultSampler':
        settings['train_cfg.max_iters'] = 2
    report = inspect(**settings)
    (line,) = report.failed
    assert line.name == 'training step'
    assert line.text.startswith('Expected more than 1 value per channel when training, got input')
    assert 'a batch of 1 image of 32x48 pixels. Batch normalization needs a second one' in line.text
    settings['train_dataloader.drop_last'] = True
    if sampler == 'DefaultSampler':
        assert inspect(**settings).failed == []


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


def test_large_images_are_scaled_down(inspect, measured, monkeypatch):
    sizes = []
    forward = KD.forward

    def watched(self, step):
        sizes.append(tuple(step.labels.shape))
        return forward(self, step)

    monkeypatch.setattr(KD, 'forward', watched)
    monkeypatch.setattr(memory, 'RUN_ON_CPU', 0)
    model = build(dict(type='mmseg_adm.KD'), **PAIR, data_preprocessor=dict(
        type='SegDataPreProcessor', size=(512, 1024), seg_pad_val=255))  # fmt: skip
    report = inspect(model)
    assert report.crop == (512, 1024)
    assert sizes == [(1, 512, 1024), (2, 192, 352), (2, 128, 256), (2, 192, 352)]
    assert report.methods[0].readings[0] == 'student.logits 19x64x128'
    assert report.memory.basis == (
        'Scaled to 2 images of 512x1024, which were not run, from steps of 2 images of 128x256 and '
        '2 images of 192x352'
    )


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
