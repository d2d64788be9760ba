import copy

import pytest
import torch
from factory import (
    CLASSES,
    SIZE,
    build,
    distiller_config,
    losses_of,
    preprocessor,
    raw_batch,
    save_segmentor,
    segmentor,
)
from mmengine.config import ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from mmseg.models.data_preprocessor import SegDataPreProcessor
from torch.testing import assert_close

from mmseg_adm.models import methods
from mmseg_adm.models.step import DistillationStep

pytestmark = pytest.mark.core

KD = dict(type='mmseg_adm.KD')
ADM = dict(type='mmseg_adm.ADM')
OTHER = dict(
    type='SegDataPreProcessor', mean=[100.0, 110.0, 120.0], std=[30.0, 40.0, 50.0],
    bgr_to_rgb=False, pad_val=7, seg_pad_val=1, size=SIZE,
)  # fmt: skip


def distiller(methods=None, seed=0, **options):
    torch.manual_seed(seed)
    return MODELS.build(distiller_config(methods, **options))


def plain(model, name, data_preprocessor):
    """The member as a segmentor of its own, without dropout."""
    width = 4 if name == 'student' else 8
    config = segmentor(width, dropout=0.0, data_preprocessor=data_preprocessor)
    network = MODELS.build(ConfigDict(config))
    network.load_state_dict(model.network(name).state_dict())
    return network


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def train_step(model, learning_rate=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    return model.train().train_step(raw_batch(), OptimWrapper(optimizer))


def assert_same_predictions(actual, expected):
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        for field in ('seg_logits', 'pred_sem_seg'):
            assert torch.equal(getattr(ours, field).data, getattr(theirs, field).data)


# ---------------------------------------------------------------------------------- modes


@pytest.mark.parametrize('student', ['student', 'teacher'])
def test_predictions_are_those_of_the_plain_student(student):
    model = distiller(dict(kd=KD), student=student).eval()
    alone = plain(model, student, preprocessor()).eval()
    assert_same_predictions(model.test_step(raw_batch()), alone.test_step(raw_batch()))
    assert_same_predictions(model.val_step(raw_batch()), alone.val_step(raw_batch()))
    with torch.no_grad():
        inputs = model.data_preprocessor(raw_batch(), False)['inputs']
        assert_same_predictions(model(inputs, mode='predict'), alone(inputs, mode='predict'))
        assert torch.equal(model(inputs), alone(inputs))
        assert torch.equal(model(inputs, mode='tensor'), alone(inputs, mode='tensor'))
    assert model.out_channels == CLASSES
    assert model.member_names[0] == student


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="mode must be 'loss', 'predict' or 'tensor', got 'train'"):
        distiller()(torch.zeros(1, 3, *SIZE), mode='train')


def test_members_predict_beside_each_other():
    model = distiller().eval()
    data = raw_batch()
    samples = data['data_samples']
    predictions = model.predict_members(data, ('teacher', 'student'))
    assert list(predictions) == ['teacher', 'student']
    for name, actual in predictions.items():
        assert_same_predictions(
            actual, plain(model, name, preprocessor()).eval().test_step(raw_batch())
        )
    assert not any('pred_sem_seg' in sample for sample in samples)


# ---------------------------------------------------------------------------------- losses


def test_losses_are_those_of_the_members_and_the_methods():
    members = dict(student=segmentor(4, auxiliary=True), teacher=segmentor(8))
    model = distiller(dict(kd=KD, adm=ADM), members=members)
    losses = losses_of(model)
    assert list(losses) == [
        'student.decode.loss_ce', 'student.decode.acc_seg', 'student.aux.loss_ce',
        'student.aux.acc_seg', 'teacher.decode.loss_ce', 'teacher.decode.acc_seg', 'kd.loss_kl',
        'adm.similarity', 'adm.similarity_std', 'adm.loss_projection', 'adm.loss_consensus',
        'adm.loss_divergence',
    ]  # fmt: skip
    total, logged = model.parse_losses(losses)
    assert_close(total, sum(value for key, value in losses.items() if 'loss' in key))
    assert logged.keys() == {'loss', *losses}


def test_members_train_on_their_own_loss():
    members = {name: segmentor(width, dropout=0.0, auxiliary=True)
               for name, width in (('student', 4), ('teacher', 8))}  # fmt: skip
    model = distiller(members=members)
    losses = losses_of(model)
    for name in members:
        network = copy.deepcopy(model.network(name))
        data = model.data_preprocessor(raw_batch(), True)
        expected = network(**data, mode='loss')
        actual = {key.removeprefix(f'{name}.'): value for key, value in losses.items()
                  if key.startswith(f'{name}.')}  # fmt: skip
        assert_close(actual, expected, rtol=0, atol=0)


def test_one_member_without_methods_is_a_plain_segmentor():
    config = segmentor(4, dropout=0.0)
    model = distiller(members=dict(student=config))
    alone = plain(model, 'student', preprocessor())
    for _ in range(2):
        train_step(model)
        train_step(alone)
    actual = {f'members.student.{key}': value for key, value in alone.state_dict().items()}
    assert_close(actual, dict(model.state_dict()), rtol=0, atol=0)


def test_strength_scales_losses_and_not_monitors():
    members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(8, dropout=0.0))
    model = distiller(dict(kd=KD, adm=ADM), members=members)
    full = losses_of(model)
    model.methods['adm'].strength = 0.25
    quarter = losses_of(model)
    assert quarter.keys() == full.keys()
    for key in full:
        scaled = key.startswith('adm.loss')
        assert_close(quarter[key], full[key] * (0.25 if scaled else 1))


def test_a_switched_off_method_keeps_its_parameters_in_the_graph():
    methods = dict(kd=KD, adm=ADM, cwd=dict(type='mmseg_adm.CWD', at='features'))
    model = distiller(methods)
    for method in model.methods.values():
        method.strength = 0.0
    losses = losses_of(model)
    assert {key.split('.')[0] for key in losses} == {'student', 'teacher'}
    total, _ = model.parse_losses(losses)
    total.backward()
    for name in ('adm', 'cwd'):
        (parameter,) = model.methods[name].parameters()
        assert parameter.grad is not None
        assert parameter.grad.eq(0).all()
    assert all(value.grad is not None for value in model.parameters())


def test_a_step_leaves_nothing_behind():
    model = distiller(dict(adm=ADM))
    taps = [tap for by_point in model._trained_taps.values() for tap in by_point.values()]
    assert taps
    losses_of(model)
    for tap in taps:
        with pytest.raises(RuntimeError, match='captured nothing'):
            _ = tap.value

    def fail(*args):
        raise KeyError('in the method')

    model.methods['adm'].forward = fail
    with pytest.raises(KeyError):
        losses_of(model)
    assert all(tap._sight is None and not tap.recording for tap in taps)


# ---------------------------------------------------------------------------------- copies


def test_a_copy_after_a_step_is_on_its_own():
    model = distiller(dict(kd=KD, adm=ADM), members={
        'student': segmentor(4, dropout=0.0), 'teacher': segmentor(8, dropout=0.0),
    })  # fmt: skip
    train_step(model)
    twin = copy.deepcopy(model)
    expected = losses_of(model)
    before = weights(model)
    assert_close(losses_of(twin), expected, rtol=0, atol=0)
    assert_close(weights(model), before, rtol=0, atol=0)
    train_step(twin)
    assert_close(weights(model), before, rtol=0, atol=0)
    assert any(not torch.equal(value, before[key]) for key, value in twin.state_dict().items())


def test_an_averaged_copy_follows_and_predicts():
    model = distiller(dict(kd=KD))
    train_step(model)
    average = ExponentialMovingAverage(model, momentum=0.5)
    start = weights(model)
    train_step(model)
    average.update_parameters(model)  # the first update copies
    train_step(model)
    last = {key: value.clone() for key, value in average.module.state_dict().items()}
    average.update_parameters(model)
    key = 'members.student.decode_head.conv_seg.weight'
    assert not torch.equal(last[key], start[key])
    assert_close(average.module.state_dict()[key], (last[key] + model.state_dict()[key]) / 2)
    prediction = average.module.eval().test_step(raw_batch())
    assert prediction[0].seg_logits.data.isfinite().all()


# ------------------------------------------------------------------------------ wrong names


@pytest.mark.parametrize(
    ('members', 'methods', 'message'),
    [
        (('student_loss',), (), "'student_loss' cannot name a member or a method"),
        (('student', 'tea.cher'), (), "'tea.cher' cannot name a member or a method"),
        (('student',), ('closs',), "'closs' cannot name a member or a method"),
        (('student',), ('k.d',), "'k.d' cannot name a member or a method"),
        (('student', 'teacher'), ('teacher',), 'teacher name both a member and a method'),
        ((), (), 'members is empty: name at least a student'),
        (('pupil', 'teacher'), (), "student='student' is not a member: pupil, teacher"),
    ],
)
def test_wrong_names_are_refused(members, methods, message):
    with pytest.raises(ValueError, match=message):
        distiller(dict.fromkeys(methods, KD), members={name: segmentor(4) for name in members})


@pytest.mark.parametrize('name', ['keys', 'train'])
@pytest.mark.parametrize('kind', ['member', 'method'])
def test_names_that_a_module_cannot_have_are_refused(kind, name):
    members = {'student': segmentor(4), 'teacher' if kind == 'method' else name: segmentor(4)}
    with pytest.raises(ValueError, match=rf"'{name}' cannot name a member or a method"):
        distiller({name: KD} if kind == 'method' else {}, members=members)


def test_different_classes_are_refused():
    members = dict(student=segmentor(4), teacher=segmentor(8, classes=7))
    message = r"different numbers of classes \({'student': 5, 'teacher': 7}\).*num_classes"
    with pytest.raises(ValueError, match=message):
        distiller(members=members)


@pytest.mark.parametrize('kind', ['mmseg_adm.KDD', 'mmseg_adm.kd', 'Nothing'])
def test_an_unknown_method_is_refused(kind):
    message = rf"method 'kd' must be a dict with the type of a method.*'{kind}'"
    with pytest.raises(ValueError, match=message):
        distiller(dict(kd=dict(type=kind)))


def test_a_method_needs_no_prefix():
    assert type(distiller(dict(kd=dict(type='KD'))).methods['kd']) is methods.KD


@pytest.mark.parametrize('config', [dict(tau=1.0), dict(), 'KD'], ids=str)
def test_a_method_without_type_is_refused(config):
    with pytest.raises(ValueError, match=r"method 'kd'.*type"):
        distiller(dict(kd=config))


def test_none_drops_an_inherited_method_or_member():
    model = distiller(
        dict(kd=dict(type='mmseg_adm.KD'), dml=None),
        members=dict(student=segmentor(4), teacher=segmentor(8), peer=None),
    )
    assert list(model.methods) == ['kd']
    assert model.member_names == ('student', 'teacher')


def test_a_type_that_is_no_method_is_refused():
    config = dict(type='mmseg_adm.KnowledgeDistiller', members=dict(student=segmentor(4)))
    with pytest.raises(ValueError, match=r"method 'kd'.*KnowledgeDistiller"):
        distiller(dict(kd=config))


# --------------------------------------------------------------------------------- loading


@pytest.fixture(scope='module')
def trained():
    return build(distiller_config(dict(adm=ADM)), seed=3)


def load(model, state_dict):
    _load_checkpoint_to_model(model, {'state_dict': state_dict}, strict=False)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_fitting_checkpoint_is_loaded(trained, prefix):
    model = distiller(dict(adm=ADM))
    load(model, {f'{prefix}{key}': value for key, value in trained.state_dict().items()})
    assert_close(weights(model), weights(trained), rtol=0, atol=0)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (lambda w: {k: v for k, v in w.items() if 'projection' not in k},
         ['1 missing: methods.adm.projection.weight']),
        (lambda w: w | {'members.peer.weight': torch.zeros(1)},
         ['1 unexpected: members.peer.weight']),
        (lambda w: w | {'methods.adm.projection.weight': torch.zeros(16, 4, 1, 1)},
         ['methods.adm.projection.weight: expected (16, 8, 1, 1), found (16, 4, 1, 1)']),
        (lambda w: {k.removeprefix('members.student.'): v for k, v in w.items()
                    if k.startswith('members.student.')},
         ['missing: members.student.backbone', 'unexpected: backbone.stem.0.weight', 'more']),
    ],
    ids=['missing', 'unexpected', 'another shape', 'plain segmentor'],
)  # fmt: skip
def test_a_checkpoint_that_does_not_fit_is_refused(trained, change, expected):
    model = distiller(dict(adm=ADM))
    before = weights(model)
    with pytest.raises(
        ValueError, match='the checkpoint does not fit KnowledgeDistiller'
    ) as caught:
        load(model, change(dict(trained.state_dict())))
    message = str(caught.value)
    assert all(part in message for part in expected)
    assert len(message.splitlines()) <= 4
    assert len(message) < 1500
    assert_close(weights(model), before, rtol=0, atol=0)


def test_an_averaged_copy_loads_as_strictly(trained):
    average = ExponentialMovingAverage(distiller(dict(adm=ADM)))
    saved = ExponentialMovingAverage(trained).state_dict()
    average.load_state_dict(saved)
    assert_close(weights(average.module), weights(trained), rtol=0, atol=0)
    del saved['module.methods.adm.projection.weight']
    with pytest.raises(ValueError, match=r'1 missing: methods\.adm\.projection\.weight'):
        average.load_state_dict(saved, strict=False)


# --------------------------------------------------------------- preprocessors of members


def small_batch():
    """Smaller than SIZE, so that it is padded."""
    return raw_batch(size=(24, 40))


@pytest.mark.parametrize('is_frozen', [True, False])
def test_each_member_sees_its_own_normalization(tmp_path, is_frozen):
    teacher = segmentor(8, dropout=0.0)
    if is_frozen:
        checkpoint = save_segmentor(tmp_path / 'teacher.pth', teacher)
        teacher.update(frozen=True, checkpoint=checkpoint)
    members = dict(
        student=segmentor(4, dropout=0.0), teacher=dict(teacher, data_preprocessor=OTHER)
    )
    model = distiller(dict(kd=KD), members=members)
    inputs, labels = {}, {}
    for name in members:
        model.network(name).backbone.register_forward_hook(
            lambda module, args, output, name=name: inputs.update({name: args[0]})
        )
        model.network(name).decode_head.loss_decode.register_forward_hook(
            lambda module, args, output, name=name: labels.update({name: args[1]})
        )
    losses = losses_of(model, small_batch())
    for name, config in (('student', preprocessor()), ('teacher', OTHER)):
        expected = MODELS.build(config)(small_batch(), True)
        assert torch.equal(inputs[name], expected['inputs'])
        if name in labels:
            assert torch.equal(
                labels[name], torch.cat([s.gt_sem_seg.data for s in expected['data_samples']])
            )
    assert inputs['student'].shape == inputs['teacher'].shape
    assert not torch.equal(inputs['student'], inputs['teacher'])
    assert ('teacher' in labels) is not is_frozen
    losses['kd.loss_kl'].backward()


def test_each_member_predicts_with_its_own_normalization():
    members = dict(student=segmentor(4), teacher=segmentor(8, data_preprocessor=OTHER))
    model = distiller(members=members).eval()
    predictions = model.predict_members(raw_batch(), ('student', 'teacher'))
    for name, config in (('student', preprocessor()), ('teacher', OTHER)):
        expected = plain(model, name, config).eval().test_step(raw_batch())
        assert_same_predictions(predictions[name], expected)
    assert_same_predictions(model.test_step(raw_batch()), predictions['student'])
    assert not any('preprocessor' in key for key in model.state_dict())


@pytest.mark.parametrize('own', [0, 1])
def test_a_shared_preprocessor_runs_once(monkeypatch, own):
    seen = []
    forward = SegDataPreProcessor.forward

    def counted(self, data, training=False):
        seen.append(tuple(self.mean.flatten().tolist()))
        return forward(self, data, training)

    members = {name: segmentor(4) for name in ('student', 'teacher', 'peer')}
    if own:
        members['peer']['data_preprocessor'] = OTHER
    model = distiller(members=members)
    monkeypatch.setattr(SegDataPreProcessor, 'forward', counted)
    losses_of(model)
    assert len(seen) == len(set(seen)) == 1 + own


def test_no_shared_preprocessor_is_needed_where_each_member_has_its_own():
    members = {
        'student': segmentor(4, data_preprocessor=preprocessor()),
        'teacher': segmentor(8, data_preprocessor=OTHER),
    }
    assert losses_of(distiller(dict(kd=KD), members=members, data_preprocessor=None))


def test_preprocessors_that_pad_differently_are_refused():
    members = dict(
        student=segmentor(4), teacher=segmentor(8, data_preprocessor=preprocessor((64, 64)))
    )
    model = distiller(members=members)
    with pytest.raises(ValueError, match=r'pad to different sizes .*\(64, 64\).*\(32, 48\)'):
        losses_of(model)


# --------------------------------------------------------------------------------- observe


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('fails', [True, False])
def test_observing_leaves_no_trace(training, fails):
    members = dict(student=segmentor(4), teacher=segmentor(8))
    members['teacher']['backbone']['norm_eval'] = True
    model = distiller(dict(adm=ADM), members=members).train(training)
    modes = {name: module.training for name, module in model.named_modules()}
    before = weights(model)

    def read(step):
        assert not any(module.training for module in model.modules())
        values = {name: step.read(name, 'logits').clone() for name in model.member_names}
        if fails:
            raise KeyError('while reading')
        return values

    if fails:
        with pytest.raises(KeyError):
            model.observe(raw_batch(), read)
    else:
        observed = model.observe(raw_batch(), read)
        model.eval()
        inputs = model.data_preprocessor(raw_batch(), False)['inputs']
        for name, logits in observed.items():
            assert not logits.requires_grad
            assert torch.equal(logits, model.network(name)(inputs))
        model.train(training)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert_close(weights(model), before, rtol=0, atol=0)
    taps = [tap for by_point in model._trained_taps.values() for tap in by_point.values()]
    assert all(tap._sight is None and not tap.recording for tap in taps)


def test_labels_are_padded_as_images_are():
    padding = dict(preprocessor(), test_cfg=dict(size_divisor=32))
    model = distiller(dict(adm=ADM), data_preprocessor=padding)
    batch = raw_batch(size=(40, 50))
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in batch['data_samples']])
    found = model.observe(batch, lambda step: step.labels)
    assert found.shape == (2, 64, 64)
    assert torch.equal(found[:, :40, :50], labels)
    assert (found[:, 40:] == 255).all()
    assert (found[:, :, 50:] == 255).all()


def test_what_an_average_sees_is_preprocessed_once():
    own = preprocessor()
    members = dict(
        student=segmentor(4), teacher=segmentor(8, data_preprocessor=own),
        mean_teacher=dict(type='mmseg_adm.EMATeacher'),
    )  # fmt: skip
    model = distiller(dict(kd=dict(KD, teacher='mean_teacher')), members=members)
    seen = []
    for module in {id(each): each for each in model.data_preprocessor.modules()}.values():
        if type(module).__name__ == 'SegDataPreProcessor':
            module.register_forward_hook(lambda module, *_: seen.append(module))
    losses_of(model)
    assert len(seen) == len(set(seen)) == 2


def test_observing_runs_frozen_members_too(tmp_path):
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', segmentor(8))
    members = dict(
        student=segmentor(4),
        teacher=segmentor(8, frozen=True, checkpoint=checkpoint, data_preprocessor=OTHER),
    )
    model = distiller(members=members)
    logits = model.observe(raw_batch(), lambda step: step.read('teacher', 'logits'))
    inputs = MODELS.build(OTHER)(raw_batch(), False)['inputs']
    with torch.no_grad():
        assert torch.equal(logits, model.network('teacher')(inputs))
    assert model.training
    assert not model.network('teacher').training


# ------------------------------------------------------------------------------------ step


def step_of(labels, ignore_index=255):
    return DistillationStep({}, labels, ignore_index)


@pytest.mark.parametrize('ignore_index', [255, 0])
@pytest.mark.parametrize('size', [(3, 4), (7, 9), (14, 18), (5, 9), (1, 1)], ids=str)
def test_valid_is_the_nearest_label(size, ignore_index):
    labels = torch.randint(0, 3, (2, 7, 9))
    labels[torch.rand(labels.shape) < 0.3] = 255
    step = step_of(labels, ignore_index)
    maps = torch.zeros(2, 4, *size)
    expected = torch.zeros(2, *size, dtype=torch.bool)
    for b in range(2):
        for i in range(size[0]):
            for j in range(size[1]):
                # Where the center of the cell lies.
                label = labels[
                    b, (2 * i + 1) * 7 // (2 * size[0]), (2 * j + 1) * 9 // (2 * size[1])
                ]
                expected[b, i, j] = label != ignore_index
    assert torch.equal(step.valid(maps), expected)
    assert step.labels_like(maps) is step.labels_like(maps + 1)
    assert step.valid_count(maps) == expected.sum()
    assert step.reduce_mean(step.valid_count(maps)) == expected.sum()


def test_match_size_resizes_bilinearly_or_not_at_all():
    # Rows at (i + 1/2) / 2 - 1/2 between 0 and 1, held at the borders.
    maps = torch.tensor([[[[0.0], [4.0]]]])
    resized = DistillationStep.match_size(maps, like=torch.zeros(1, 9, 4, 1))
    assert_close(resized.flatten(), torch.tensor([0.0, 1.0, 3.0, 4.0]))
    assert DistillationStep.match_size(maps, like=torch.zeros(1, 9, 2, 1)) is maps


def test_labels_and_ignore_index_are_those_of_the_student():
    members = dict(student=segmentor(4), teacher=segmentor(8))
    for config in members.values():
        config['decode_head']['ignore_index'] = 2
    model = distiller(dict(kd=KD), members=members)
    steps = []
    model.methods['kd'].forward = lambda step: steps.append(step) or {}
    batch = raw_batch()
    labels = torch.cat([sample.gt_sem_seg.data for sample in batch['data_samples']])
    labels[labels == 255] = 2
    for sample, label in zip(batch['data_samples'], labels, strict=True):
        sample.gt_sem_seg.data = label[None]
    losses_of(model, batch)
    assert torch.equal(steps[0].labels, labels)
    assert steps[0].ignore_index == 2


@pytest.mark.parametrize('method', ['KD', 'ADM', 'CWD', 'DML'])
def test_a_trained_member_without_gradient_is_refused(method):
    model = distiller(dict(method=dict(type=f'mmseg_adm.{method}')))
    model.members['student'].requires_grad_(False)
    message = r"'(logits|features)' of member 'student' carries no gradient, although .* trains"
    with pytest.raises(RuntimeError, match=message):
        losses_of(model)
    with torch.no_grad():
        losses = losses_of(model)
    assert all(value.isfinite().all() for value in losses.values())


def test_reading_what_did_not_run_is_refused():
    step = DistillationStep(distiller()._taps_by_member(), torch.zeros(1, 2, 2), 255)
    with pytest.raises(RuntimeError, match="tap 'logits' captured nothing"):
        step.read('student', 'logits')


def test_what_reaches_for_a_part_of_a_plain_segmentor_is_told_where_it_is():
    model = build(distiller_config())
    for part in ('backbone', 'decode_head', 'extract_feat'):
        where = rf"attribute '{part}': .*runner\.model\.network\('student'\)\.{part}$"
        with pytest.raises(AttributeError, match=where):
            getattr(model, part)
    with pytest.raises(AttributeError, match=r"attribute 'nothing'$"):
        _ = model.nothing
    assert not hasattr(model, 'backbone')
