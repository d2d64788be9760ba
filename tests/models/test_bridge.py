import copy

import pytest
import torch
from factory import (
    CLASSES,
    build,
    distiller_config,
    losses_of,
    preprocessor,
    quick_in,
    raw_batch,
    save_segmentor,
    segmentor,
)
from mmengine.config import ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn
from torch.testing import assert_close

from mmseg_adm.engine import CPUAmpOptimWrapper
from mmseg_adm.models.shared import SharedModule

pytestmark = pytest.mark.core

SOKD = dict(sokd=dict(type='mmseg_adm.SOKD'))
OTHER = dict(preprocessor(), mean=[100.0, 110.0, 120.0], std=[30.0, 40.0, 50.0])


def head(kind='FCNHead', **options):
    common = dict(
        channels=16, dropout_ratio=0.0, num_classes=CLASSES, norm_cfg=dict(type='BN'),
        align_corners=False, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False),
    )  # fmt: skip
    if kind == 'FCNHead':
        common.update(num_convs=1, concat_input=False)
    return dict(common | options, type=kind)


def network(decode_head, kind, **backbone):
    return dict(
        type='EncoderDecoder', backbone=dict(type=kind, **backbone), decode_head=decode_head,
        train_cfg=dict(), test_cfg=dict(mode='whole'),
    )  # fmt: skip


def stage(*channels, block='BASIC'):
    return dict(
        num_modules=1, num_branches=len(channels), block=block, num_blocks=(1,) * len(channels),
        num_channels=channels,
    )  # fmt: skip


ALL = dict(in_index=[0, 1, 2, 3])
RESNET = segmentor(8, dropout=0.0, auxiliary=True)
HRNET = network(
    head(in_channels=[4, 8, 8, 8], input_transform='resize_concat', **ALL), 'HRNet',
    norm_cfg=dict(type='BN'), extra=dict(
        stage1=stage(4, block='BOTTLENECK'), stage2=stage(4, 8), stage3=stage(4, 8, 8),
        stage4=stage(4, 8, 8, 8),
    ),
)  # fmt: skip
# By backbone: the teacher, where it is split, a module that both share, what trains.
CASES = {
    'ResNet': (RESNET, None, 'layer1', ['layer4']),
    'ResNet, earlier': (RESNET, 'layer3', 'layer1', ['layer3', 'layer4']),
    'MobileNetV2': (
        network(
            head(in_channels=80, in_index=3), 'MobileNetV2', widen_factor=0.25,
            out_indices=(1, 2, 4, 6), dilations=(1, 1, 1, 2, 2, 4, 4),
            strides=(1, 2, 2, 1, 1, 1, 1), norm_cfg=dict(type='BN'),
        ),
        None, 'layer5', ['layer6', 'layer7'],
    ),
    'MixVisionTransformer': (
        network(
            head('SegformerHead', in_channels=[8, 8, 16, 16], **ALL), 'MixVisionTransformer',
            embed_dims=8, num_stages=4, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 2, 2],
            patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3),
            mlp_ratio=2, drop_path_rate=0.0,
        ),
        None, 'layers.1.0', ['layers.3'],
    ),
    'Swin': (
        network(
            head('UPerHead', in_channels=[8, 16, 32, 64], pool_scales=(1, 2), **ALL),
            'SwinTransformer', embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2),
            window_size=4, mlp_ratio=2, drop_path_rate=0.0, patch_norm=True,
        ),
        None, 'stages.0', ['stages.3', 'norm3'],
    ),
    'HRNet': (HRNET, 'transition3', 'stage2', ['transition3', 'stage4']),
    'ViT': (
        network(
            head(in_channels=16, in_index=0), 'VisionTransformer', img_size=(64, 64),
            patch_size=8, embed_dims=16, num_layers=3, num_heads=2, mlp_ratio=2, out_indices=2,
        ),
        'layers.2', 'layers.0', ['layers.2'],
    ),
}  # fmt: skip

# Stages, and a split by name.
QUICK = ('ResNet', 'HRNet')


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Writes a teacher's weights, once for each."""
    folder = tmp_path_factory.mktemp('teachers')
    paths = {}

    def save(name, config):
        if name not in paths:
            paths[name] = save_segmentor(folder / f'{len(paths)}.pth', config)
        return paths[name]

    return save


@pytest.fixture
def bridged(checkpoint):
    """Builds a distiller of a case; ``options`` are those of the bridge."""

    def make(name='ResNet', methods=SOKD, own=None, teacher=None, student='student', seed=0,
             **options):  # fmt: skip
        config, split, _, _ = CASES[name]
        if split is not None:
            options.setdefault('split', split)
        path = checkpoint(name, config)
        config = dict(config, frozen=True, checkpoint=path, **(teacher or {}))
        if own is not None:
            config['data_preprocessor'] = own
        members = dict(
            student=segmentor(4, dropout=0.0), teacher=config,
            bridge=dict(type='mmseg_adm.TeacherBridge', **options),
        )  # fmt: skip
        return build(distiller_config(methods, members=members, student=student), seed)

    return make


def shared(model):
    return [module for module in model.members.modules() if isinstance(module, SharedModule)]


def inputs_of(model, seed=0):
    return model.data_preprocessor(raw_batch(seed=seed), False)['inputs']


def count(module):
    calls = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


# ---------------------------------------------------------------------------- what it is made of


@pytest.mark.parametrize('name', quick_in(CASES, *QUICK))
def test_what_comes_after_the_split_trains(name, bridged):
    model = bridged(name)
    paths = (*(f'backbone.{path}.' for path in CASES[name][3]), 'decode_head.')
    expected = {key for key, _ in model.network('teacher').named_parameters()
                if key.startswith(paths)}  # fmt: skip
    trained = {key for key, value in model.members['bridge'].named_parameters()
               if value.requires_grad}  # fmt: skip
    assert trained == expected
    loss, _ = model.parse_losses(losses_of(model.train()))
    loss.backward()
    for key, value in model.members['bridge'].named_parameters():
        assert (value.grad is not None) == (key in expected), key


@pytest.mark.parametrize('name', quick_in(CASES, *QUICK))
def test_nothing_of_the_teacher_is_saved(name, bridged):
    model = bridged(name)
    teacher = model.network('teacher')
    own = model.members['bridge'].state_dict()
    assert own.keys() < teacher.state_dict().keys()
    assert {key.split('.')[1] for key in model.state_dict() if key.startswith('members.')} == {
        'student',
        'bridge',
    }
    held = {value.data_ptr() for value in model.state_dict().values()}
    assert not held & {value.data_ptr() for value in teacher.state_dict().values()}
    inside = {id(module) for module in model.modules()}
    assert not inside & {id(module) for module in teacher.modules()}


@pytest.mark.parametrize('name', quick_in(CASES, *QUICK))
def test_a_copy_of_the_teacher_predicts_as_it_does(name, bridged):
    model = bridged(name, init='teacher').eval()
    with torch.no_grad():
        expected = model.network('teacher')(inputs_of(model))
        assert expected.std() > 0
        found = model.network('bridge')(inputs_of(model))
    # PyTorch rounds attention otherwise where its weights can train, also in evaluation.
    tolerance = 1e-6 if name in ('MixVisionTransformer', 'ViT') else 0
    assert_close(found, expected, rtol=tolerance, atol=tolerance)
    predictions = model.predict_members(raw_batch(), ('bridge', 'teacher'))
    for one, other in zip(*predictions.values(), strict=True):
        assert_close(one.seg_logits.data, other.seg_logits.data, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('name', quick_in(CASES, *QUICK))
def test_a_fresh_one_is_drawn_from_the_seed(name, bridged):
    first, again, other = (bridged(name, seed=seed) for seed in (0, 0, 1))
    states = [model.members['bridge'].state_dict() for model in (first, again, other)]
    assert_close(states[0], states[1], rtol=0, atol=0)
    teacher = first.network('teacher').state_dict()
    # A classifier is always drawn; norms and biases begin alike.
    for state in (teacher, states[2]):
        key = 'decode_head.conv_seg.weight'
        assert not torch.equal(states[0][key], state[key])


@pytest.mark.parametrize('name', ['ResNet', 'ViT'])
def test_it_is_not_initialized_again(name, bridged):
    model = bridged(name, init='teacher')
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert_close(dict(model.state_dict()), dict(before), rtol=0, atol=0)


def test_position_embeddings_come_before_the_split(bridged):
    backbones = [bridged('ViT').network(name).backbone for name in ('bridge', 'teacher')]
    for key in ('pos_embed', 'cls_token'):
        assert torch.equal(*(getattr(backbone, key) for backbone in backbones))


@pytest.mark.parametrize('init', ['fresh', 'teacher'])
@pytest.mark.parametrize('several', [False, True])
def test_a_pretrained_backbone_is_not_downloaded(init, several, bridged, monkeypatch):
    def fetch(url):
        raise AssertionError(f'{url} would be downloaded')

    monkeypatch.setattr('mmseg_adm.checkpoint.fetching.fetch', fetch)
    pretrained = dict(type='Pretrained', checkpoint='open-mmlab://resnet18_v1c')
    init_cfg = [dict(type='Kaiming', layer='Conv2d'), pretrained] if several else pretrained
    teacher = dict(backbone=dict(RESNET['backbone'], init_cfg=init_cfg))
    model = bridged(init=init, teacher=teacher)
    losses_of(model)


def test_fresh_is_fresh_whatever_the_segmentor_is_initialized_with(bridged, checkpoint):
    path = checkpoint('ResNet', RESNET)
    model = bridged(teacher=dict(init_cfg=dict(type='Pretrained', checkpoint=path)))
    drawn, loaded = (model.network(name).decode_head.conv_seg for name in ('bridge', 'teacher'))
    assert not torch.equal(drawn.weight, loaded.weight)


# --------------------------------------------------------------------------------------- a step


@pytest.mark.parametrize('name', CASES)
def test_the_shared_stages_run_once_a_step(name, bridged):
    model = bridged(name).train()
    module = model.network('teacher').backbone.get_submodule(CASES[name][2])
    calls = count(module)
    losses_of(model)
    assert len(calls) == 1
    # Where no method reads the teacher, the bridge runs them.
    model.methods['sokd'].strength = 0.0
    losses_of(model)
    assert len(calls) == 2
    model.eval()
    with torch.no_grad():
        model.network('bridge')(inputs_of(model))
    assert len(calls) == 3


@pytest.mark.parametrize('name', quick_in(CASES, *QUICK))
def test_it_reads_the_maps_of_its_own_step(name, bridged, monkeypatch):
    model = bridged(name).train()
    batches = [raw_batch(seed=seed) for seed in (1, 2)]
    kept = [losses_of(model, batch) for batch in batches]
    calls = count(model.network('teacher').backbone.get_submodule(CASES[name][2]))
    monkeypatch.setattr(
        SharedModule, 'forward', torch.no_grad()(lambda self, *args: self._shared[0](*args))
    )
    live = [losses_of(model, batch) for batch in batches]
    assert len(calls) == 2 * len(batches)
    for one, other in zip(kept, live, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-6)
    key = 'bridge.decode.loss_ce'
    assert abs(kept[0][key] - kept[1][key]) > 1e-4


@pytest.mark.parametrize('fails', [False, True])
def test_maps_are_released_after_the_step(fails, bridged):
    model = bridged().train()
    kept = []

    def see(step):
        kept.extend(module._kept for module in shared(model))
        if fails:
            raise KeyError('in the method')
        return {}

    model.methods['sokd'].forward = see
    if fails:
        with pytest.raises(KeyError):
            losses_of(model)
    else:
        losses_of(model)
    assert kept
    assert all(each is not None and not each.requires_grad for each in kept)
    assert all(module._kept is None and not module.recording for module in shared(model))


def test_a_module_of_a_bridge_can_be_read(bridged):
    at = dict(type='mmseg_adm.AT', teacher='bridge', at='backbone.layer4')
    model = bridged(methods=dict(SOKD, at=at)).train()
    assert losses_of(model)['at.loss_attention'] > 0


def test_observing_leaves_nothing_behind(bridged):
    model = bridged(init='teacher').train()
    logits = model.observe(
        raw_batch(), lambda step: [step.read(name, 'logits') for name in ('bridge', 'teacher')]
    )
    assert torch.equal(*logits)
    assert all(module._kept is None for module in shared(model))


@pytest.mark.parametrize('name', ['ResNet', 'ViT'])
@pytest.mark.parametrize('kind', [OptimWrapper, CPUAmpOptimWrapper])
def test_training_moves_the_bridge_and_not_the_teacher(name, kind, bridged):
    model = bridged(name).train()
    teacher, own = model.network('teacher'), model.members['bridge']
    before = copy.deepcopy((teacher.state_dict(), own.state_dict()))
    wrapper = kind(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
    for seed in range(2):
        logged = model.train_step(raw_batch(seed=seed), wrapper)
    for key, value in logged.items():
        assert value.dtype == torch.float32, key
        assert value.isfinite(), key
    assert_close(dict(teacher.state_dict()), dict(before[0]), rtol=0, atol=0)
    assert all(value.grad is None for value in teacher.parameters())
    for key, value in own.named_parameters():
        assert torch.equal(value, before[1][key]) != value.requires_grad, key


def test_it_sees_images_as_its_teacher_does(bridged):
    model = bridged(own=OTHER, init='teacher').eval()
    seen = []
    for name in ('teacher', 'bridge'):
        model.network(name).backbone.register_forward_pre_hook(
            lambda module, inputs: seen.append(inputs[0])
        )
    losses_of(model)
    assert torch.equal(*seen)
    predictions = model.predict_members(raw_batch(), ('bridge', 'teacher', 'student'))
    alone = MODELS.build(ConfigDict(RESNET, data_preprocessor=OTHER)).eval()
    alone.load_state_dict(model.network('teacher').state_dict())
    for ours, theirs in zip(predictions['bridge'], alone.test_step(raw_batch()), strict=True):
        assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)


# --------------------------------------------------------------------------------------- copies


@pytest.mark.parametrize('average', [False, True])
def test_a_copy_shares_the_teacher(average, bridged):
    model = bridged().train()
    losses_of(model)
    if average:
        averaged = ExponentialMovingAverage(model, momentum=0.5)
        twin = averaged.module
    else:
        twin = copy.deepcopy(model)
    assert twin.frozen['teacher'] is model.frozen['teacher']
    assert [id(each) for each in shared(twin)] == [id(each) for each in shared(model)]
    assert twin.state_dict().keys() == model.state_dict().keys()
    own, others = ({id(value) for value in each.parameters()} for each in (model, twin))
    assert not own & others
    with torch.no_grad():  # an averaged copy has no gradient
        assert_close(losses_of(twin), losses_of(model), rtol=0, atol=0)
    if average:
        key = 'decode_head.conv_seg.weight'
        start = twin.members['bridge'].state_dict()[key].clone()
        with torch.no_grad():
            model.members['bridge'].decode_head.conv_seg.weight += 1
        # The first update copies.
        averaged.update_parameters(model)
        assert_close(twin.members['bridge'].state_dict()[key], start + 1)


def test_the_bridge_can_be_deployed(bridged):
    model = bridged(student='bridge').eval()
    assert model.member_names == ('bridge', 'student', 'teacher')
    expected = model.predict_members(raw_batch(), ('bridge',))['bridge']
    for ours, theirs in zip(model.test_step(raw_batch()), expected, strict=True):
        assert torch.equal(ours.seg_logits.data, theirs.seg_logits.data)


# -------------------------------------------------------------------------------------- refusals


class Skipping(nn.Module):
    """Its second layer reads the image beside what the first one returned."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(11, 8, 3, padding=1)

    def forward(self, images):
        return (self.second(torch.cat([self.first(images), images], dim=1)),)


class Reusing(nn.Module):
    """One activation serves both of its layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, images):
        return (self.relu(self.second(self.relu(self.first(images)))),)


@pytest.mark.parametrize(
    ('kind', 'text'),
    [
        (Skipping, r"Skipping cannot be split at 'second': .* reads more than .* \(mmseg_adm\.KD"),
        (Reusing, r"Reusing cannot be split at 'second': it calls relu both before and after it"),
    ],
)
def test_a_backbone_that_cannot_be_split_is_refused(kind, text, tmp_path):
    MMSEG_MODELS.register_module(name=f'Test{kind.__name__}', module=kind, force=True)
    config = network(head(in_channels=8, in_index=0), f'Test{kind.__name__}')
    path = save_segmentor(tmp_path / 'teacher.pth', config)
    members = dict(
        student=segmentor(4), teacher=dict(config, frozen=True, checkpoint=path),
        bridge=dict(type='mmseg_adm.TeacherBridge', split='second'),
    )  # fmt: skip
    with pytest.raises(ValueError, match=rf"member 'bridge' \(TeacherBridge\): {text}"):
        build(distiller_config(SOKD, members=members))


@pytest.mark.parametrize(
    ('name', 'options', 'text'),
    [
        ('ResNet', dict(teacher='student'), r"extends 'student', which must be a frozen member"),
        ('ResNet', dict(teacher='tutor'), r"extends 'tutor', .*members\.tutor=dict\(frozen=True"),
        ('ResNet', dict(splt='layer3'), r"no option 'splt'\. Its options: teacher, split, init"),
        ('ResNet', dict(init='copy'), r"init must be 'fresh' or 'teacher', got 'copy'"),
        ('HRNet', dict(split=''), r'where the last stage of a HRNet begins .*transition3, stage4'),
        ('ResNet', dict(split='nonsense'), r"calls no module at 'nonsense' .*: stem, maxpool, lay"),
        ('ResNet', dict(split='layer3.1'), r"calls no module at 'layer3\.1' itself"),
        ('ResNet', dict(split='stem'), r"ResNetV1c cannot be split at 'stem'"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused(name, options, text, checkpoint):
    config = CASES[name][0]
    teacher = dict(config, frozen=True, checkpoint=checkpoint(name, config))
    bridge = dict(type='mmseg_adm.TeacherBridge', **options)
    members = dict(student=segmentor(4), teacher=teacher, bridge=bridge)
    with pytest.raises(ValueError, match=rf"member 'bridge' \(TeacherBridge\): .*{text}"):
        build(distiller_config(members=members))


def test_sokd_without_a_bridge_is_refused():
    with pytest.raises(ValueError, match=r"'bridge' is not a member.*type='mmseg_adm\.TeacherBri"):
        build(distiller_config(SOKD))


def test_a_teacher_that_trains_is_refused():
    members = dict(
        student=segmentor(4), teacher=segmentor(8), bridge=dict(type='mmseg_adm.TeacherBridge')
    )
    with pytest.raises(ValueError, match=r"'teacher', which must be a frozen member"):
        build(distiller_config(members=members))
