"""Losses of the methods, recomputed from maps that hooks of the test's own have captured."""

import copy
from math import log

import pytest
import reference
import torch
import torch.nn.functional as F
from factory import distiller_config, losses_of, preprocessor, raw_batch
from method_cases import ADM_READINGS, METHODS
from method_models import build, network
from mmengine.registry import MODELS
from reference.basics import positions
from torch.testing import assert_close

from mmseg_adm.models.methods import adm

MEMBERS = ('student', 'teacher')
SMALL = (16, 24)
CLASS_WEIGHT = [0.5, 1.0, 2.5, 0.25, 1.5]


class Captured:
    """What networks compute, read by hooks of the test's own.

    Args:
        model: A distiller of PSPNets.
        batch: What it will be run on.
    """

    def __init__(self, model, batch):
        self.features, self.logits = {}, {}
        self.labels = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
        for name in model.member_names:
            head = model.network(name).decode_head
            head.bottleneck.register_forward_hook(self._keep(self.features, name))
            head.conv_seg.register_forward_hook(self._keep(self.logits, name))

    @staticmethod
    def _keep(store, name):
        def hook(module, inputs, output):
            # The first output is the network's own: modulation runs the classifier again.
            store.setdefault(name, output.detach())

        return hook

    def labels_like(self, maps):
        """The labels that the positions of the map fall on."""
        (height, width), (rows, columns) = self.labels.shape[-2:], maps.shape[-2:]
        down = [int(i * height / rows) for i in range(rows)]
        right = [int(j * width / columns) for j in range(columns)]
        return self.labels[:, down][:, :, right]

    def valid(self, maps):
        """y != 255 there."""
        return self.labels_like(maps) != 255


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


def capture(model, size):
    """Maps and losses of one batch."""
    batch = raw_batch(size=size)
    captured = Captured(model, batch)
    return captured, losses_of(model, batch)


def resized(maps, like):
    """Bilinear resizing by loops."""
    size = tuple(like.shape[-2:])
    planes = maps.double().flatten(0, 1)
    return torch.stack([reference.resize(plane, size) for plane in planes]).unflatten(
        0, maps.shape[:2]
    )


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
    labelled = torch.tensor(CLASS_WEIGHT)[captured.labels * counted] * counted
    difference = cross_entropy(captured, logits, weight) - cross_entropy(
        captured, logits, everywhere
    )
    return difference * labelled.mean()


def imitation(captured, weight):
    """sum c_p KL(sg zt_p || zs_p) / sum c_p, all at the size of the student's logits."""
    student = captured.logits['student']
    weight = resized(weight[:, None], student)[:, 0] * captured.valid(student)
    target = resized(captured.logits['teacher'], student)
    return reference.weighted_pixel_kl(student, target, weight)


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


# Every reading of one side once: the sides do not know of each other.
@pytest.mark.parametrize(
    'reading', [reading for reading in ADM_READINGS if None in reading[:2]], ids=str
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
    'loss',
    [
        dict(),  # divides by all pixels
        dict(avg_non_ignore=True),
        dict(class_weight=[0.5, 1.0, 2.5, 0.25, 1.5], reduction='none'),
    ],
    ids=['default', 'avg_non_ignore', 'class_weight'],
)
def test_reweighting_keeps_the_total_weight_of_the_cross_entropy(loss):
    # With the member's own cross entropy it is the one weighted by 1 - a + a w / mean(w).
    share = 0.25
    networks = {name: network(width) for name, width in (('student', 4), ('teacher', 8))}
    for each in networks.values():
        each['decode_head']['loss_decode'] = dict(type='CrossEntropyLoss', **loss)
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
        logits = F.interpolate(captured.logits[member], captured.labels.shape[-2:], mode='bilinear')
        each = F.cross_entropy(logits, captured.labels, ignore_index=255, reduction='none')
        weight = F.interpolate(weight[:, None], each.shape[-2:], mode='bilinear')[:, 0]
        mean = (weight * classes).sum() / classes.sum()
        factor = 1 - share + share * weight / mean
        scale = own / (classes * each).sum()
        side = 'consensus' if member == 'student' else 'divergence'
        term = losses[f'method.loss_{side}'].detach()
        assert_close(own + term, scale * (factor * classes * each).sum())
        assert term.abs() > 1e-3


@pytest.mark.parametrize('side', ['consensus', 'divergence'])
def test_reweighting_has_no_more_than_the_whole(side):
    with pytest.raises(ValueError, match=f'{side}_weight must be at most 1'):
        build(dict(type='mmseg_adm.ADM', **{side: 'reweighting', f'{side}_weight': 1.5}))


@pytest.mark.parametrize('class_weight', [True, False])
def test_adm_weighs_classes_as_its_members_or_all_alike(class_weight):
    config = dict(type='mmseg_adm.ADM', consensus=None, class_weight=class_weight)
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


@pytest.mark.parametrize('contrast', ['centre', 'standardise', 'rank'])
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

    assert (factor(), factor(consensus='alignment'), factor(consensus_weight=2)) == (5, 1, 2)


@pytest.mark.parametrize('consensus', ['channelwise', 'imitation', 'alignment'])
def test_adm_compares_with_a_target_for_one_side_and_the_teacher_for_the_other(consensus):
    def losses_with(**options):
        networks = {name: network(width, dropout=0.0) for name, width in
                    (('student', 4), ('teacher', 8), ('other', 8))}  # fmt: skip
        members = dict(networks, mean_teacher=dict(type='mmseg_adm.MovingAverage', of='other'))
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
        adm=dict(type='mmseg_adm.ADM', control='ones', divergence=None),
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
    assert model.paused_members == ({'teacher'} if paused else set())


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
