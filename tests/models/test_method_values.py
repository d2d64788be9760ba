"""Losses of the methods, recomputed from maps that hooks of the tests' own have captured."""

import copy
from math import log

import pytest
import reference
import torch
import torch.nn.functional as F
from captured_maps import MEMBERS, SMALL, Captured, capture, resized
from factory import distiller_config, losses_of, preprocessor, raw_batch
from method_cases import METHODS
from method_models import build, network
from mmengine.registry import MODELS
from reference.basics import positions
from torch.testing import assert_close


@pytest.mark.parametrize(
    ('name', 'options', 'teacher_width', 'shapes'),
    [
        ('ADM', dict(at='features'), 8, [(16, 8, 1, 1)]),
        ('ADM', dict(at='features'), 4, []),
        ('ADM', dict(at='logits'), 8, []),
        ('CWD', dict(at='features'), 8, [(16, 8, 1, 1)]),
        ('CWD', dict(at='backbone.layer1'), 8, [(8, 4, 1, 1)]),
        ('CWD', dict(at='backbone.layer1'), 4, []),
        ('CWD', dict(at='logits'), 8, []),
    ],
)
def test_a_projection_only_where_widths_differ(name, options, teacher_width, shapes):
    model = build(dict(type=f'mmseg_adm.{name}', **options), teacher=network(teacher_width))
    assert [tuple(p.shape) for p in model.methods.parameters()] == shapes


def test_dml_of_three_averages_over_the_others():
    members = ('student', 'teacher', 'peer')
    networks = {name: network(4) for name in members}
    config = dict(type='mmseg_adm.DML', members=members, tau=2.0, weight=3.0)
    torch.manual_seed(0)
    model = MODELS.build(
        distiller_config(
            dict(method=config), members=networks, data_preprocessor=preprocessor((16, 24))
        )
    )
    captured, losses = capture(model, (16, 24))
    valid = captured.valid(captured.logits['student'])
    for name in members:
        pulls = [
            reference.pixel_kl(captured.logits[name], captured.logits[other], 2.0, valid)
            for other in members
            if other != name
        ]
        value = losses[f'method.loss_{name}'].detach()
        assert_close(value, (3 * sum(pulls) / 2).float(), rtol=1e-4, atol=1e-6)


def values_of(losses):
    """Losses and monitors of the method."""
    return {key[len('method.'):]: value.detach() for key, value in losses.items()
            if key.startswith('method.')}  # fmt: skip


def run(name, at=None, **options):
    """Maps and values of a method: maps of the student 2 x 3, of the teacher 4 x 6."""
    if at:
        options['at'] = at
    variant = METHODS[name][0]
    variant = variant._replace(options=variant.options | options)
    model = build(
        variant, student=network(4, (1, 2)), teacher=network(8, (1, 1)),
        data_preprocessor=preprocessor(SMALL),
    )  # fmt: skip
    captured, losses = capture(model, SMALL)
    return model, captured, values_of(losses)


def double(module):
    """A copy in float64, for maps in float64."""
    return copy.deepcopy(module).double()


def close(values, expected):
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(values[name], torch.as_tensor(value).detach().float(), rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ('name', 'term', 'formula'),
    [
        ('KD', 'loss_kl', reference.pixel_kl),
        ('CWD', 'loss_cwd', reference.channel_wise_divergence),
    ],
)
def test_logit_methods_by_hand(name, term, formula):
    _, captured, values = run(name, tau=3.0, weight=2.0)
    student = captured.logits['student']
    teacher = resized(captured.logits['teacher'], student)
    close(values, {term: 2 * formula(student, teacher, 3.0, captured.valid(student))})


def test_dist_by_hand():
    _, captured, values = run('DIST', tau=2.0, inter_weight=3.0, intra_weight=5.0)
    student = captured.logits['student']
    teacher = resized(captured.logits['teacher'], student)
    arguments = student, teacher, 2.0, captured.valid(student)
    expected = {
        'loss_inter': 3 * reference.inter_class_correlation(*arguments),
        'loss_intra': 5 * reference.intra_class_correlation(*arguments),
    }
    close(values, expected)


@pytest.mark.parametrize('name', ['AT', 'SKD', 'IFVD', 'FitNet', 'MGD'])
def test_feature_methods_by_hand(name):
    options = dict(mask_ratio=0.0) if name == 'MGD' else {}
    model, captured, values = run(name, at='features', weight=2.0, **options)
    method = model.methods['method']
    student = captured.features['student'].double()
    if getattr(method, 'projection', None) is not None:
        student = F.conv2d(student, method.projection.weight.detach().double())
    if name == 'MGD':
        student = double(method.generator)(student).detach()
    teacher = resized(captured.features['teacher'], student)
    valid, labels = captured.valid(student), captured.labels_like(student)
    expected = {
        'AT': lambda: reference.attention_transfer(student, teacher, valid),
        'SKD': lambda: reference.pairwise_affinity(student, teacher, (2, 2), valid),
        'IFVD': lambda: reference.intra_class_variation(student, teacher, labels),
        'FitNet': lambda: reference.feature_error(student, teacher, valid),
        'MGD': lambda: reference.feature_error(student, teacher, valid),
    }[name]()
    (term,) = METHODS[name][0].terms
    close(values, {term: 2 * expected})


@pytest.mark.parametrize('ensemble', ['naive', 'min_logit', 'mean'])
def test_kdcl_by_hand(ensemble):
    _, captured, values = run('KDCL', ensemble=ensemble, tau=3.0, weight=2.0)
    student = captured.logits['student']
    both = [resized(captured.logits[name], student) for name in MEMBERS]
    target = getattr(reference, f'{ensemble}_target')(both, captured.labels_like(student))
    expected = {}
    for name in MEMBERS:
        own = captured.logits[name]
        valid = captured.valid(own)
        expected[f'loss_{name}'] = 2 * reference.pixel_kl(own, resized(target, own), 3.0, valid)
    close(values, expected)


def constant_networks(model, **probabilities):
    """Let each member predict the same distribution everywhere."""
    for name, distribution in probabilities.items():
        classifier = model.network(name).decode_head.conv_seg
        classifier.weight.data.zero_()
        classifier.bias.data.copy_(torch.tensor(distribution).log())


@pytest.mark.parametrize(
    ('student', 'teacher', 'gap', 'distances', 'paused'),
    [
        # |0.5-0.8| + |0.1-0.05| + |0.2-0.05| + 2 * |0.1-0.05| = 0.6 = s - t: all in line.
        ((0.5, 0.1, 0.2, 0.1, 0.1), (0.8, 0.05, 0.05, 0.05, 0.05), 0.6, (1.0, 0.4), False),
        # |0.5-0.8| + |0.01-0.17| + 3 * |0.49/3-0.01|: what they get wrong is not the same.
        ((0.5, 0.01, *[0.49 / 3] * 3), (0.8, 0.17, *[0.01] * 3), 0.92, (1.0, 0.4), True),
        # The same gap, the student leads.
        ((0.8, 0.17, *[0.01] * 3), (0.5, 0.01, *[0.49 / 3] * 3), 0.92, (0.4, 1.0), False),
    ],
)
def test_switokd_by_hand(student, teacher, gap, distances, paused):
    model = build(dict(type='mmseg_adm.SwitOKD', student_weight=2.0, teacher_weight=3.0))
    model.pauses_members = True
    constant_networks(model, student=student, teacher=teacher)
    batch = raw_batch()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data.mul_(0)
    losses = values_of(losses_of(model, batch))
    s, t = distances
    pull = sum(p * log(p / q) for p, q in zip(teacher, student, strict=True))
    back = sum(q * log(q / p) for p, q in zip(teacher, student, strict=True))
    expected = {
        'gap': gap,
        'threshold': s - torch.exp(torch.tensor(-t / (t + s))) * t,
        'paused': float(paused),
        'loss_student': 2 * pull,
        'loss_teacher': 0 if paused else 3 * back,
    }
    close(losses, expected)
    assert model.paused_members() == {'teacher': torch.tensor(paused)}


def test_sokd_by_hand():
    options = dict(weight=2.0, teacher_weight=3.0, student_weight=5.0, tau=3.0)
    _, captured, values = run('SOKD', **options)

    def learn(learner, source):
        own = captured.logits[learner]
        target = resized(captured.logits[source], own)
        return reference.pixel_kl(own, target, 3.0, captured.valid(own))

    expected = {
        'loss_student': 2 * learn('student', 'bridge'),
        'loss_bridge_teacher': 3 * learn('bridge', 'teacher'),
        'loss_bridge_student': 5 * learn('bridge', 'student'),
    }
    close(values, expected)


def test_ffsd_by_hand():
    weights = dict(diversity_weight=2.0, fusion_weight=3.0, self_distillation_weight=5.0)
    stages = METHODS['FFSD'][0].options['stages']
    variant = METHODS['FFSD'][0]._replace(options=dict(stages=stages, tau=3.0, **weights))
    model = build(variant, data_preprocessor=preprocessor(SMALL))
    batch = raw_batch(size=SMALL)
    captured, maps = Captured(model, batch), {}
    for name in model.member_names:
        for stage in stages:
            module = model.network(name).get_submodule(stage)
            module.register_forward_hook(captured._keep(maps, (name, stage)))
    values = values_of(losses_of(model, batch))

    method = copy.deepcopy(model.methods['method'])
    levels = list(zip(stages, (64, 256), strict=True))
    features, logits = captured.features, captured.logits
    valid = captured.valid(logits['leader'])

    def imitate(own, target):
        return reference.pixel_kl(own, target, 3.0, valid)

    def attend(name, targets):
        return sum(
            reference.attention_transfer(
                maps[name, stage], target, captured.valid(target)) / size
            for (stage, size), target in zip(levels, targets, strict=True)
        )  # fmt: skip

    with torch.no_grad():
        fused, fused_logits = method.fusion([features['peer1'], features['peer2']])
        target, shifted = reference.shifted_attention(features['peer1'], valid)
        imitated = method.self_distillation['peer2'](shifted.float())
        fitted = 0
        for name in ('peer2', 'leader'):
            for (stage, size), made in zip(
                levels, method.self_distillation[name](features[name]), strict=True
            ):
                own, there = maps[name, stage], captured.valid(made)
                whole = [[value for b, i, j in positions(there) if b == image
                          for value in own[b, :, i, j]] for image in range(len(own))]  # fmt: skip
                mine = [[value for b, i, j in positions(there) if b == image
                         for value in made[b, :, i, j]] for image in range(len(own))]  # fmt: skip
                fitted += reference.unit_distance(mine, whole) / (size * own.shape[1])
                fitted += reference.attention_transfer(made, own, there) / size
        attention = reference.attention_transfer(features['leader'], fused, valid) / 64
        attention += reference.attention_transfer(
            method.expansion(features['leader']),
            torch.cat([features['peer1'], features['peer2']], dim=1),
            valid,
        ) / 64  # fmt: skip
        attention += attend('leader', method.self_distillation['leader'](fused))
        mean = (logits['peer1'] + logits['peer2']) / 2
        everywhere = torch.ones(len(mean), *SMALL)
        expected = {
            'loss_fusion': reference.weighted_cross_entropy(
                fused_logits, captured.labels, everywhere) + imitate(fused_logits, mean),
            'loss_peer1': imitate(logits['peer1'], logits['peer2']),
            'loss_peer2': imitate(logits['peer2'], logits['peer1']),
            'loss_diversity': 2 * (reference.diversity(features['peer2'], target, valid)
                                   + attend('peer2', imitated)),
            'loss_self_distillation': 5 * fitted,
            'loss_leader': imitate(logits['leader'], fused_logits),
            'loss_attention': 3 * attention,
        }  # fmt: skip
    close(values, expected)
