"""ADM, recomputed from maps that hooks of the tests' own have captured."""

import copy
from itertools import zip_longest

import pytest
import reference
import torch
import torch.nn.functional as F
from captured_maps import MEMBERS, SMALL, Captured, capture, resized
from factory import distiller_config, losses_of, preprocessor, raw_batch
from method_cases import ADM_CONSENSUS, ADM_DIVERGENCE
from method_models import build, network
from mmengine.registry import MODELS
from torch.testing import assert_close

from mmseg_adm.models.methods import adm

CLASS_WEIGHT = [0.5, 1.0, 2.5, 0.25, 1.5]


def with_small_bias(model):
    """Shrink what all positions share: the similarity of logits then has both signs."""
    for name in MEMBERS:
        model.network(name).decode_head.conv_seg.bias.data.mul_(0.1)
    return model


def weighing(config):
    """A network whose own cross entropy weighs the classes."""
    config['decode_head']['loss_decode'] = dict(
        type='CrossEntropyLoss', class_weight=CLASS_WEIGHT, reduction='none'
    )
    return config


def compared(model, captured, at):
    """Both maps of the similarity, float64, at the teacher's size."""
    maps = captured.features if at == 'features' else captured.logits
    student, teacher = (maps[name].double() for name in MEMBERS)
    if at == 'logits':
        student, teacher = (
            torch.stack([m[:, k] - m.sum(1) / m.shape[1] for k in range(m.shape[1])], dim=1)
            for m in (student, teacher)
        )
    elif student.shape[1] != teacher.shape[1]:
        weight = model.methods['method'].projection.weight.detach().double()[:, :, 0, 0]
        student = torch.einsum('oc,bchw->bohw', weight, student)
    return resized(student, teacher), teacher


def modulated(model, captured, member, weight):
    """CE(classifier(w * f), y)."""
    features = captured.features[member].double()
    classifier = copy.deepcopy(model.network(member).decode_head.conv_seg).double()
    scaled = resized(weight[:, None], features) * features
    logits = F.conv2d(scaled, classifier.weight, classifier.bias).detach()
    return cross_entropy(captured, logits, torch.ones_like(weight))


def cross_entropy(captured, logits, weight):
    """CE(z, y; w), the classes weighted as in the members' own."""
    class_weight = torch.tensor(CLASS_WEIGHT, dtype=torch.float64)
    return reference.weighted_cross_entropy(
        logits, captured.labels, weight, class_weight=class_weight
    )


def reweighted(captured, member, weight):
    """CE(z, y; w) - CE(z, y), times the weight of the labels per pixel of the image."""
    logits = captured.logits[member]
    everywhere = torch.ones_like(weight)
    counted = captured.labels != 255
    labeled = torch.tensor(CLASS_WEIGHT)[captured.labels * counted] * counted
    difference = cross_entropy(captured, logits, weight) - cross_entropy(
        captured, logits, everywhere
    )
    return difference * labeled.mean()


def imitation(captured, weight):
    """sum c_p KL(sg zt_p || zs_p) / sum c_p, all at the size of the student's logits."""
    student = captured.logits['student']
    weight = resized(weight[:, None], student)[:, 0] * captured.valid(student)
    target = resized(captured.logits['teacher'], student)
    return reference.pixel_kl(student, target, weight=weight)


def channelwise(captured, weight):
    """CWD in which every position counts by its weight, at the size of the student's logits."""
    student = captured.logits['student']
    return reference.channel_wise_divergence(
        student,
        resized(captured.logits['teacher'], student),
        valid=captured.valid(student),
        weight=resized(weight[:, None], student)[:, 0],
    )


def by_hand(model, captured, consensus, divergence, at):
    student, teacher = compared(model, captured, at)
    valid = captured.valid(teacher)
    similarity = reference.similarity_map(student, teacher)
    agreement = reference.consensus_weight(similarity)
    expected = {}
    if consensus == 'alignment':
        expected['loss_consensus'] = reference.consensus_alignment(student, teacher, valid)
    elif consensus == 'modulation':
        expected['loss_consensus'] = modulated(model, captured, 'student', agreement)
    elif consensus == 'imitation':
        expected['loss_consensus'] = imitation(captured, agreement * valid)
    elif consensus == 'channelwise':
        expected['loss_consensus'] = channelwise(captured, agreement)
    elif consensus == 'reweighting':
        expected['loss_consensus'] = reweighted(captured, 'student', agreement)
    if divergence == 'weighting':
        logits = captured.logits['teacher']
        expected['loss_divergence'] = cross_entropy(captured, logits, 1 - agreement)
    elif divergence == 'reweighting':
        expected['loss_divergence'] = reweighted(captured, 'teacher', 1 - agreement)
    elif divergence == 'modulation':
        expected['loss_divergence'] = modulated(model, captured, 'teacher', 1 - agreement)
    elif divergence == 'repulsion':
        expected['loss_divergence'] = reference.divergence_repulsion(student, teacher, valid)
    counted = similarity[valid]
    assert counted.min() < -0.01
    assert counted.max() > 0.01
    expected['similarity'] = counted.sum() / len(counted)
    expected['similarity_std'] = (
        (counted - expected['similarity']).square().sum() / len(counted)
    ).sqrt()
    if at == 'features':
        expected['loss_projection'] = reference.cosine_distance(student, teacher, valid)
    return {name: value.float() for name, value in expected.items()}


# The sides do not know of each other: each reading at each point, two at a time.
@pytest.mark.parametrize(
    'reading',
    [
        (*pair, at)
        for pair in zip_longest(ADM_CONSENSUS, ADM_DIVERGENCE)
        for at in ('features', 'logits')
    ],
    ids=str,
)
def test_adm_by_hand(reading):
    consensus, divergence, at = reading
    size = (16, 24)
    factors = {'loss_consensus': 0.5 if consensus == 'reweighting' else 2.0,
               'loss_divergence': 0.5 if divergence == 'reweighting' else 3.0}  # fmt: skip
    config = dict(
        type='mmseg_adm.ADM', consensus=consensus, divergence=divergence, at=at,
        consensus_weight=factors['loss_consensus'],
        divergence_weight=factors['loss_divergence'],
    )  # fmt: skip
    # Maps of 2 x 3 and 4 x 6; half of what the classifiers read is dropped.
    model = build(
        config,
        student=weighing(network(4, (1, 2), dropout=0.5)),
        teacher=weighing(network(8, (1, 1), dropout=0.5)),
        data_preprocessor=preprocessor(size),
    )
    captured, losses = capture(with_small_bias(model), size)
    expected = by_hand(model, captured, *reading)
    for name, factor in factors.items():
        if name in expected:
            expected[name] = factor * expected[name]
    assert {key for key in losses if key.startswith('method.')} == {
        f'method.{name}' for name in expected
    }
    for name, value in expected.items():
        assert_close(losses[f'method.{name}'].detach(), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('loss', 'head'),
    [
        (dict(), dict()),  # divides by all pixels
        (dict(avg_non_ignore=True), dict(align_corners=True)),
        (dict(class_weight=[0.5, 1.0, 2.5, 0.25, 1.5], reduction='none'), dict()),
        (dict(), dict(sampler=dict(type='OHEMPixelSampler', thresh=0.3, min_kept=200))),
    ],
    ids=['default', 'avg_non_ignore, align_corners', 'class_weight', 'OHEM'],
)
def test_reweighting_keeps_the_total_weight_of_the_cross_entropy(loss, head):
    # With the member's own cross entropy it is the one weighted by 1 - a + a w / mean(w).
    share = 0.25
    networks = {name: network(width) for name, width in (('student', 4), ('teacher', 8))}
    for each in networks.values():
        each['decode_head'] |= dict(head, loss_decode=dict(type='CrossEntropyLoss', **loss))
    config = dict(
        type='mmseg_adm.ADM', consensus='reweighting', divergence='reweighting',
        consensus_weight=share, divergence_weight=share,
    )  # fmt: skip
    model = build(config, **networks)
    for name in MEMBERS:  # fresh networks say the same everywhere
        model.network(name).decode_head.conv_seg.weight.data.mul_(50)
    batch = raw_batch()
    for sample in batch['data_samples']:
        sample.gt_sem_seg.data[:, :, ::2] = 255
    captured = Captured(model, batch)
    losses = losses_of(model, batch)
    similarity = reference.similarity_map(*compared(model, captured, 'features'))
    agreement = reference.consensus_weight(similarity).float()
    counted = captured.labels != 255
    classes = torch.tensor(loss.get('class_weight', [1.0] * 5))[captured.labels * counted] * counted
    for member, weight in (('student', agreement), ('teacher', 1 - agreement)):
        own = losses[f'{member}.decode.loss_ce'].detach().mean()
        own_head = model.network(member).decode_head
        logits = F.interpolate(
            captured.logits[member], captured.labels.shape[-2:], mode='bilinear',
            align_corners=own_head.align_corners,
        )  # fmt: skip
        sampled = classes
        if own_head.sampler:
            sampled = classes * own_head.sampler.sample(logits, captured.labels[:, None])
            assert 0 < sampled.count_nonzero() < classes.count_nonzero()
        each = F.cross_entropy(logits, captured.labels, ignore_index=255, reduction='none')
        weight = F.interpolate(weight[:, None], each.shape[-2:], mode='bilinear')[:, 0]
        mean = (weight * sampled).sum() / sampled.sum()
        factor = 1 - share + share * weight / mean
        scale = own / (sampled * each).sum()
        side = 'consensus' if member == 'student' else 'divergence'
        term = losses[f'method.loss_{side}'].detach()
        assert_close(own + term, scale * (factor * sampled * each).sum())
        assert term.abs() > 1e-3


@pytest.mark.parametrize('side', ['consensus', 'divergence'])
def test_reweighting_has_no_more_than_the_whole(side):
    with pytest.raises(ValueError, match=f'{side}_weight must be at most 1'):
        build(dict(type='mmseg_adm.ADM', **{side: 'reweighting', f'{side}_weight': 1.5}))


@pytest.mark.parametrize('class_weight', [True, False])
def test_adm_weighs_classes_as_its_members_or_all_alike(class_weight):
    config = dict(
        type='mmseg_adm.ADM', consensus=None, divergence='weighting', class_weight=class_weight
    )
    model = build(config, teacher=weighing(network(8)), data_preprocessor=preprocessor(SMALL))
    captured, losses = capture(model, SMALL)
    similarity = reference.similarity_map(*compared(model, captured, 'features'))
    expected = reference.weighted_cross_entropy(
        captured.logits['teacher'],
        captured.labels,
        1 - reference.consensus_weight(similarity),
        class_weight=CLASS_WEIGHT if class_weight else None,
    )
    assert_close(losses['method.loss_divergence'].detach(), expected.float(), rtol=1e-4, atol=0)


@pytest.mark.parametrize('contrast', ['center', 'standardize', 'rank'])
def test_adm_takes_its_weights_from_the_contrast(contrast):
    model = build(dict(type='mmseg_adm.ADM', contrast=contrast))
    batch = raw_batch(size=SMALL)
    captured = Captured(model, batch)
    maps = model.observe(batch, model.methods['method'].maps)
    similarity = reference.similarity_map(*compared(model, captured, 'features'))
    valid = captured.valid(captured.features['teacher'])
    expected = reference.consensus_weight(similarity, contrast, valid).float()
    assert_close(maps['consensus weight'], expected, rtol=1e-4, atol=1e-4)
    assert_close(maps['divergence weight'], 1 - expected, rtol=1e-4, atol=1e-4)


def test_controls_replace_the_weights():
    batch = raw_batch()
    maps = {}
    for control in (None, 'ones', 'shuffled'):
        model = build(dict(type='mmseg_adm.ADM', control=control))
        maps[control] = model.observe(batch, model.methods['method'].maps)
    assert maps['ones']['consensus weight'].eq(1).all()
    assert maps['ones']['divergence weight'].eq(1).all()
    moved = maps['shuffled']['consensus weight'].flatten(1)
    own = maps[None]['consensus weight'].flatten(1)
    assert_close(moved.sort(dim=1).values, own.sort(dim=1).values)
    assert not moved.equal(own)
    assert_close(maps['shuffled']['divergence weight'].flatten(1), 1 - moved)
    assert_close(maps['shuffled']['similarity'], maps[None]['similarity'])


@pytest.mark.parametrize('at', ['features', 'logits'])
def test_adm_maps_agree_with_its_networks(at):
    model = build(
        dict(type='mmseg_adm.ADM', at=at),
        student=network(4, (1, 2), dropout=0.5),
        teacher=network(8, (1, 1), dropout=0.5),
    )
    batch = raw_batch()
    captured = Captured(with_small_bias(model), batch)
    maps = model.observe(batch, model.methods['method'].maps)
    similarity = reference.similarity_map(*compared(model, captured, at)).float()
    agreement = torch.where(similarity > 0, similarity, torch.zeros_like(similarity))
    expected = {
        'similarity': similarity,
        'consensus weight': agreement,
        'divergence weight': 1 - agreement,
    }
    assert_close(maps, expected, rtol=1e-4, atol=1e-5)
    assert similarity.min() < -0.01
    assert similarity.max() > 0.01


@pytest.mark.parametrize(('divergence', 'calls'), [('weighting', 1), ('repulsion', 2)])
@pytest.mark.parametrize('at', ['features', 'logits'])
def test_adm_compares_once_a_step(monkeypatch, at, divergence, calls):
    seen = []

    def counted(student, teacher):
        seen.append(tuple(student.shape))
        return similarity_map(student, teacher)

    similarity_map = adm.similarity_map
    monkeypatch.setattr(adm, 'similarity_map', counted)
    losses_of(build(dict(type='mmseg_adm.ADM', at=at, divergence=divergence)))
    assert len(seen) == calls


def test_adm_weighs_channelwise_consensus_as_cwd():
    def factor(**options):
        return build(dict(type='mmseg_adm.ADM', **options)).methods['method'].consensus_weight

    assert (factor(), factor(consensus='channelwise'), factor(consensus_weight=2)) == (1, 5, 2)


@pytest.mark.parametrize('consensus', ['channelwise', 'imitation', 'alignment'])
def test_adm_compares_with_a_target_for_one_side_and_the_teacher_for_the_other(consensus):
    def losses_with(**options):
        networks = {name: network(width, dropout=0.0) for name, width in
                    (('student', 4), ('teacher', 8), ('other', 8))}  # fmt: skip
        members = dict(networks, mean_teacher=dict(type='mmseg_adm.EMATeacher', of='other'))
        method = dict(type='mmseg_adm.ADM', consensus=consensus, **options)
        torch.manual_seed(0)
        model = MODELS.build(distiller_config(dict(method=method), members=members))
        return {key: value.detach() for key, value in losses_of(model).items()
                if key.startswith('method.')}  # fmt: skip

    found = losses_with(target='mean_teacher')
    teacher = losses_with()
    # The average of its first step is the network itself, but for its batch statistics.
    target = losses_with(teacher='mean_teacher', divergence=None)
    assert_close(found['method.loss_consensus'], target['method.loss_consensus'])
    assert_close(found['method.loss_projection'], target['method.loss_projection'])
    assert_close(found['method.similarity'], target['method.similarity'])
    assert_close(found['method.loss_divergence'], teacher['method.loss_divergence'])
    assert not found['method.loss_consensus'].equal(teacher['method.loss_consensus'])


def test_adm_shows_what_each_side_is_weighted_by():
    members = {name: network(width, dropout=0.0)
               for name, width in (('student', 4), ('teacher', 8), ('tutor', 8))}  # fmt: skip

    def maps_with(**options):
        torch.manual_seed(0)
        method = dict(type='mmseg_adm.ADM', **options)
        model = MODELS.build(distiller_config(dict(method=method), members=members))
        return model.observe(raw_batch(), model.methods['method'].maps)

    found, target, teacher = (
        maps_with(**options)
        for options in (dict(target='tutor'), dict(teacher='tutor'), dict(teacher='teacher'))
    )
    assert_close(found['similarity'], target['similarity'])
    assert_close(found['consensus weight'], target['consensus weight'])
    assert_close(found['divergence weight'], teacher['divergence weight'])
    assert not found['divergence weight'].equal(target['divergence weight'])


def test_a_target_is_as_wide_as_the_teacher():
    members = {name: network(width) for name, width in
               (('student', 4), ('teacher', 8), ('tutor', 6))}  # fmt: skip
    method = dict(type='mmseg_adm.ADM', target='tutor')
    with pytest.raises(ValueError, match=r"'tutor' and 'teacher' are \[12, 16\] wide: with at="):
        MODELS.build(distiller_config(dict(method=method), members=members))
    MODELS.build(distiller_config(dict(method=dict(method, at='logits')), members=members))


def test_all_weights_one_is_cwd_at_any_size():
    networks = dict(student=network(4, (1, 2)), teacher=network(8, (1, 1)))
    methods = dict(
        adm=dict(type='mmseg_adm.ADM', consensus='channelwise', control='ones', divergence=None),
        cwd=dict(type='mmseg_adm.CWD'),
    )
    model = MODELS.build(distiller_config(methods, members=networks))
    losses = losses_of(model)
    assert_close(losses['adm.loss_consensus'], losses['cwd.loss_cwd'])


def test_adm_monitors_are_logged_and_not_summed():
    model = build(dict(type='mmseg_adm.ADM'))
    losses = losses_of(model)
    total, logged = model.parse_losses(losses)
    monitors = {'method.similarity', 'method.similarity_std'}
    assert monitors <= logged.keys()
    assert all(not losses[name].requires_grad for name in monitors)
    terms = ['student.decode.loss_ce', 'teacher.decode.loss_ce', 'method.loss_projection',
             'method.loss_consensus', 'method.loss_divergence']  # fmt: skip
    assert_close(total, sum(losses[name] for name in terms))
