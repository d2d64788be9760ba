"""The figures in the tables, and the tables."""

import pytest
import torch
from factory import (
    SIZE,
    build,
    distiller_config,
    preprocessor,
    save_segmentor,
    segmentor,
)
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmseg_adm.preflight import Check, Report, as_text, inspect_config, print_report
from mmseg_adm.preflight.overview import (
    describe_members,
    describe_methods,
)
from mmseg_adm.preflight.teachers import Score, _score
from mmseg_adm.preflight.terms import SavedActivations

pytestmark = pytest.mark.core

FITNET = dict(fitnet=dict(type='mmseg_adm.FitNet', weight=2.0))


def wrapper_of(model, **optimizer):
    return build_optim_wrapper(model, dict(optimizer=dict(lr=0.1) | optimizer))


def test_members():
    own = preprocessor() | dict(mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0])
    teacher = segmentor(8, data_preprocessor=own)
    model = build(distiller_config(members=dict(student=segmentor(4), teacher=teacher)))
    student, teacher = describe_members(model, SIZE)
    assert (student.name, student.network, student.role) == (
        'student', 'ResNetV1c-18 + PSPHead', 'trained',
    )  # fmt: skip
    expected = sum(parameter.numel() for parameter in model.members['student'].parameters())
    assert student.parameters == expected
    assert 3 < teacher.flops / student.flops < 4.5
    assert student.preprocessing.startswith('BGR to RGB, mean (123.675, 116.28, 103.53), std')
    assert teacher.preprocessing == 'BGR to RGB, mean (0, 0, 0), std (255, 255, 255)'


def test_the_roles_of_members(tmp_path):
    checkpoint = save_segmentor(tmp_path / 'frozen.pth', segmentor(4))
    members = dict(
        student=segmentor(4),
        teacher=segmentor(8),
        mean_teacher=dict(type='mmseg_adm.EMATeacher'),
        frozen=segmentor(4, frozen=True, checkpoint=checkpoint),
        bridge=dict(type='mmseg_adm.TeacherBridge', teacher='frozen'),
    )
    rows = describe_members(build(distiller_config(members=members)), SIZE)
    assert {row.name: row.role for row in rows} == {
        'student': 'trained',
        'teacher': 'trained',
        'mean_teacher': 'EMA teacher',
        'frozen': 'frozen',
        'bridge': 'trained, bridge on frozen',
    }


def test_flops_grow_with_the_crop_and_may_be_unknown(monkeypatch):
    model = build(distiller_config())
    small, large = (describe_members(model, size)[0].flops for size in (SIZE, (64, 96)))
    # Pooling branches see maps of a fixed size.
    assert large == pytest.approx(4 * small, rel=0.02)
    assert describe_members(model, None)[0].flops is None

    def untraceable(*_):
        raise RuntimeError

    monkeypatch.setattr('mmseg_adm.models.flops.FlopAnalyzer', untraceable)
    assert describe_members(model, SIZE)[0].flops is None


def test_maps_and_their_alignment():
    student = segmentor(4)
    student['backbone']['strides'] = (1, 2, 2, 1)
    model = build(distiller_config(FITNET, members=dict(student=student, teacher=segmentor(8))))
    (method,) = describe_methods(model, SIZE, {'fitnet': dict(start=10, stop=None)})
    assert method.readings == ('student.features 8x2x3', 'teacher.features 16x4x6')
    assert method.alignment == ('8 -> 16 by 1x1, 128 parameters', '4x6 resized to 2x3')
    assert method.parameters == 128
    assert method.settings == ('weight 2', 'start 10')


def test_maps_that_need_nothing():
    model = build(distiller_config(dict(kd=dict(type='mmseg_adm.KD'))))
    (method,) = describe_methods(model, SIZE, {})
    assert method.alignment == ()
    assert method.parameters == 0


def test_what_autograd_saves():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Sigmoid())
    images = torch.rand(2, 3, 8, 8)
    with (saved := SavedActivations(model)):
        model(images)
    # The convolution keeps its input, each sigmoid its output; weights are there anyway.
    assert saved.bytes == 4 * (images.numel() + 2 * 2 * 4 * 8 * 8)


def score_of(predicted, labels, classes):
    from mmseg.evaluation import IoUMetric

    predicted, labels = torch.as_tensor(predicted), torch.as_tensor(labels)
    return _score(*IoUMetric.intersect_and_union(predicted, labels, classes, 255))


def test_scores():
    labels = torch.tensor([0] * 40 + [1] * 30 + [2] * 30)
    assert score_of(labels, labels, 4).miou == 1
    constant = score_of(torch.zeros_like(labels), labels, 4)
    assert constant.miou == pytest.approx(constant.chance) == pytest.approx(0.4 / 3)
    assert not constant.better_than_chance
    # Scattered guesses beat the best constant, and are no better than chance.
    guesses = torch.randint(0, 3, (100_000,))
    scattered = score_of(guesses, labels.repeat(1000), 4)
    assert scattered.miou > constant.miou + 0.05
    assert scattered.miou == pytest.approx(scattered.chance, abs=0.01)
    assert not scattered.better_than_chance
    half = torch.where(torch.rand(100_000) < 0.5, labels.repeat(1000), guesses)
    assert score_of(half, labels.repeat(1000), 4).better_than_chance
    assert not Score(0.22, 0.2).better_than_chance
    assert Score(0.23, 0.2).better_than_chance


def test_all_tables_on_one_screen(preflight_config, measured, capsys):
    report = inspect_config(preflight_config)
    text = as_text(report)
    for words in (
        'Members', 'ResNetV1c-18 + PSPHead', 'GFLOPs at 32x48', 'student, teacher: BGR to RGB',
        'Methods', 'adm (ADM)', 'student.features 8x4x6', '8 -> 16 by 1x1', '128 parameters',
        'dml.loss_teacher', "adm's own modules", 'Memory of a step, ', '2 images of 32x48.',
        'Checks', 'class counts',
    ):  # fmt: skip
        assert words in text
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) < 60
    assert '\x1b' not in text
    capsys.readouterr()
    print_report(report)
    assert capsys.readouterr().out == f'{text}\n'


def test_what_is_not_known_is_said():
    report = Report(checks=[Check('networks', 'failed', 'no [such] thing')])
    text = as_text(report)
    assert 'no [such] thing' in text
    assert 'Members' not in text
