"""Networks of every family that mmseg ships, paired from their own configs and trained a step."""

import copy
import re
import sys

import pytest
import torch
from factory import quick_in, raw_batch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmseg.registry import MODELS as MMSEG_MODELS

from mmseg_adm.checkpoint import drop_pretrained
from mmseg_adm.commands.launch import replace_sync_bn
from mmseg_adm.config import pair, recipe_of
from mmseg_adm.export import plain_config

pytestmark = pytest.mark.core

SIZE = (64, 64)
CLASSES = {'cityscapes': 19, 'ade20k': 150}
# A ResNet-50 of an eighth of the width.
NARROW = {'backbone.base_channels': 8, 'backbone.stem_channels': 8, 'decode_head.in_channels': 256,
          'decode_head.channels': 32, 'auxiliary_head.in_channels': 128}  # fmt: skip
VIT = {'backbone.embed_dims': 48, 'backbone.num_heads': 3, 'backbone.img_size': SIZE}
SHALLOW_VIT = VIT | {'backbone.num_layers': 4, 'backbone.out_indices': (0, 1, 2, 3)}
UPER = {'decode_head.channels': 32, 'auxiliary_head.channels': 16}
UPER_ON_VIT = UPER | {'decode_head.in_channels': [48] * 4, 'auxiliary_head.in_channels': 48}

# By the name that the tests use: a config of mmseg, and what makes it small.
NETWORKS = {
    'psp-r18': ('pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py', {}),
    'psp-r18-v1d': (
        'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py',
        {'backbone.type': 'ResNetV1d'},
    ),
    'psp-r50-adamw': ('pspnet/pspnet_r50-d8-rsb_4xb2-adamw-80k_cityscapes-512x1024.py', NARROW),
    'fcn-r18': ('fcn/fcn_r18-d8_4xb2-80k_cityscapes-512x1024.py', {}),
    'fcn-resnext': (
        'fcn/fcn_r50-d8_4xb2-80k_cityscapes-512x1024.py',
        NARROW | {'backbone.type': 'ResNeXt', 'backbone.groups': 4, 'backbone.base_width': 4},
    ),
    'fcn-r50-ade': ('fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py', NARROW),
    'aspp-r18b': ('deeplabv3/deeplabv3_r18b-d8_4xb2-80k_cityscapes-512x1024.py', {}),
    'deeplabv3plus-r18': (
        'deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_cityscapes-512x1024.py',
        {},
    ),
    'deeplabv3plus-mnv2': (
        'mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py',
        {'decode_head.channels': 64},
    ),
    'fcn-mnv2-ade': (
        'mobilenet_v2/mobilenet-v2-d8_fcn_4xb4-160k_ade20k-512x512.py',
        {'decode_head.channels': 32},
    ),
    'lraspp-mnv3': (
        'mobilenet_v3/mobilenet-v3-d8-scratch-s_lraspp_4xb4-320k_cityscapes-512x1024.py',
        {},
    ),
    'fcn-hr18s': ('hrnet/fcn_hr18s_4xb2-80k_cityscapes-512x1024.py', {}),
    'ocr-hr18s': ('ocrnet/ocrnet_hr18s_4xb2-80k_cityscapes-512x1024.py', {}),
    'upernet-r18': (
        'upernet/upernet_r18_4xb2-80k_cityscapes-512x1024.py',
        {'decode_head.channels': 64},
    ),
    'segformer-b0': ('segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py', {}),
    'segformer-b0-ade': ('segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py', {}),
    'unet': (
        'unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
        {
            'backbone.base_channels': 8,
            'decode_head.in_channels': 8,
            'auxiliary_head.in_channels': 16,
        },
    ),
    'bisenetv1': ('bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py', {}),
    'bisenetv2': ('bisenetv2/bisenetv2_fcn_4xb4-160k_cityscapes-1024x1024.py', {}),
    'stdc1': ('stdc/stdc1_4xb12-80k_cityscapes-512x1024.py', {}),
    'cgnet': ('cgnet/cgnet_fcn_4xb8-60k_cityscapes-512x1024.py', {}),
    'erfnet': ('erfnet/erfnet_fcn_4xb4-160k_cityscapes-512x1024.py', {}),
    'fast-scnn': ('fastscnn/fast_scnn_8xb4-160k_cityscapes-512x1024.py', {}),
    'ddrnet': ('ddrnet/ddrnet_23-slim_in1k-pre_2xb6-120k_cityscapes-1024x1024.py', {}),
    'pidnet': ('pidnet/pidnet-s_2xb6-120k_1024x1024-cityscapes.py', {}),
    'setr': (
        'setr/setr_vit-l_naive_8xb1-80k_cityscapes-768x768.py',
        SHALLOW_VIT
        | {'decode_head.in_channels': 48}
        | {f'auxiliary_head.{index}.in_channels': 48 for index in range(3)},
    ),
    'swin': (
        'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        UPER
        | {
            'backbone.embed_dims': 24,
            'backbone.depths': [2, 2, 2, 2],
            'decode_head.in_channels': [24, 48, 96, 192],
            'auxiliary_head.in_channels': 96,
        },
    ),
    'twins-pcpvt': (
        'twins/twins_pcpvt-s_fpn_fpnhead_8xb4-80k_ade20k-512x512.py',
        {'backbone.depths': [1, 1, 1, 1], 'neck.out_channels': 64, 'decode_head.channels': 64,
         'decode_head.in_channels': [64] * 4},
    ),
    'twins-svt': (
        'twins/twins_svt-s_uperhead_8xb2-160k_ade20k-512x512.py',
        UPER | {'backbone.depths': [2, 2, 2, 2]},
    ),
    'segnext': ('segnext/segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512.py', {}),
    'segmenter-fcn': (
        'segmenter/segmenter_vit-s_fcn_8xb1-160k_ade20k-512x512.py',
        VIT | {'backbone.num_layers': 4, 'decode_head.in_channels': 48, 'decode_head.channels': 48},
    ),
    'deit': ('vit/vit_deit-s16_upernet_8xb2-80k_ade20k-512x512.py', SHALLOW_VIT | UPER_ON_VIT),
    'beit': (
        'beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py',
        SHALLOW_VIT | UPER_ON_VIT | {'neck.embed_dim': 48},
    ),
    'mae': (
        'mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py',
        SHALLOW_VIT | UPER_ON_VIT | {'neck.embed_dim': 48},
    ),
}  # fmt: skip
# Heads that cannot read less than this.
SIZES = {'lraspp-mnv3': (400, 400)}
ADM = ('loss_consensus', 'loss_divergence')
TERMS = {
    'adm': {f'adm.{term}' for term in ADM} | {'dml.loss_student', 'dml.loss_teacher'},
    'dml': {'dml.loss_student', 'dml.loss_teacher'},
    'kdcl': {'kdcl.loss_student', 'kdcl.loss_teacher'},
    'at': {'at.loss_attention'},
    'cwd': {'cwd.loss_cwd'},
    'dist': {'dist.loss_inter', 'dist.loss_intra'},
    'ifvd': {'ifvd.loss_variation', 'kd.loss_kl'},
    'mgd': {'mgd.loss_generation'},
    'skd': {'skd.loss_pairwise', 'kd.loss_kl'},
    'sokd': {'sokd.loss_student', 'sokd.loss_bridge_teacher', 'sokd.loss_bridge_student'},
    'switokd': {'switokd.loss_student'},
}
PAIRS = [
    # Convolution and transformer, both ways round.
    ('psp-r18', 'segformer-b0', 'adm'),
    ('segformer-b0', 'psp-r18', 'adm'),
    ('fcn-mnv2-ade', 'swin', 'adm'),
    ('swin', 'fcn-r50-ade', 'adm'),
    ('fcn-r50-ade', 'deit', 'adm'),
    ('bisenetv2', 'setr', 'adm'),
    ('stdc1', 'segformer-b0', 'mgd'),
    ('segformer-b0', 'fcn-hr18s', 'cwd'),
    ('psp-r18', 'segformer-b0', 'sokd'),
    ('fcn-mnv2-ade', 'twins-svt', 'dist'),
    # Two of one kind.
    ('psp-r18', 'psp-r50-adamw', 'adm'),
    ('psp-r18-v1d', 'fcn-resnext', 'adm'),
    ('deeplabv3plus-mnv2', 'deeplabv3plus-r18', 'adm'),
    ('lraspp-mnv3', 'fast-scnn', 'dml'),
    ('fcn-r18', 'aspp-r18b', 'ifvd'),
    ('fcn-hr18s', 'ocr-hr18s', 'adm'),
    ('ocr-hr18s', 'upernet-r18', 'adm'),
    ('unet', 'psp-r18', 'adm'),
    ('cgnet', 'erfnet', 'kdcl'),
    ('bisenetv1', 'ddrnet', 'dml'),
    ('pidnet', 'psp-r18', 'adm'),
    ('fast-scnn', 'psp-r18', 'switokd'),
    ('ddrnet', 'stdc1', 'skd'),
    ('segformer-b0-ade', 'twins-pcpvt', 'adm'),
    ('segmenter-fcn', 'segnext', 'adm'),
    ('segnext', 'segmenter-fcn', 'at'),
    # Layer-wise learning rates, by constructors of mmseg.
    ('segformer-b0-ade', 'beit', 'adm'),
    ('mae', 'fcn-r50-ade', 'adm'),
    ('mae', 'segformer-b0-ade', 'cwd'),
]


def name_of(network: str) -> str:
    return f'mmseg::{NETWORKS[network][0]}'


def small_pair(student: str, teacher: str, method: str, checkpoint: str) -> Config:
    """The paired config, with the networks and images of these tests."""
    frozen = recipe_of(method).model.members.teacher.get('frozen')
    paired = pair(name_of(student), name_of(teacher), method, checkpoint if frozen else None)
    size = SIZES.get(student, SIZE)
    overrides = {'model.data_preprocessor.size': size}
    for role, network in (('student', student), ('teacher', teacher)):
        shrink = NETWORKS[network][1]
        overrides |= {f'model.members.{role}.{key}': value for key, value in shrink.items()}
        if 'data_preprocessor' in paired.model.members[role]:
            overrides[f'model.members.{role}.data_preprocessor.size'] = size
    paired.merge_from_dict(overrides)
    # mmseg's runs in mixed precision need a GPU, and are slow in float16 on a CPU.
    if paired.optim_wrapper.get('dtype'):
        paired.optim_wrapper.dtype = 'bfloat16'
    drop_pretrained(paired.model)
    if frozen:
        paired.model.members.teacher.checkpoint = checkpoint
    replace_sync_bn(paired)
    return paired


def batch_of(paired: Config) -> dict:
    head = paired.model.members.student.decode_head
    classes = (head[-1] if isinstance(head, list) else head).num_classes
    batch = raw_batch(size=paired.model.data_preprocessor.size, classes=classes)
    for sample in batch['data_samples']:
        # Upstream's class weights (CGNet, PIDNet) fail on labels that are ignored.
        sample.gt_sem_seg.data.clamp_(max=classes - 1)
        # PIDNet learns edges too.
        sample.gt_edge_map = PixelData(data=torch.zeros_like(sample.gt_sem_seg.data))
    return batch


def save_teacher(paired: Config, path: str) -> None:
    network = MMSEG_MODELS.build(plain_config(paired, 'teacher').model)
    torch.save({'state_dict': network.state_dict(), 'meta': {}}, path)


def is_long(index, names):
    """All but every twelfth pair, and large images."""
    return index % 12 > 0 or bool(SIZES.keys() & set(names))


@pytest.mark.parametrize(
    ('student', 'teacher', 'method'),
    [pytest.param(*names, marks=[pytest.mark.slow] if is_long(index, names) else [])
     for index, names in enumerate(PAIRS)],
)  # fmt: skip
def test_a_pair_trains(student, teacher, method, tmp_path):
    checkpoint = str(tmp_path / 'teacher.pth')
    paired = small_pair(student, teacher, method, checkpoint)
    if paired.model.members.teacher.get('frozen'):
        save_teacher(paired, checkpoint)
    model = MODELS.build(copy.deepcopy(paired.model))
    model.init_weights()
    model.train()
    model.pauses_members = True  # SwitOKD's hook belongs to a Runner
    wrapper = build_optim_wrapper(model, paired.optim_wrapper)
    before = {key: value.clone() for key, value in model.named_parameters()}
    logs = model.train_step(batch_of(paired), wrapper)

    assert not [key for key, value in logs.items() if not value.isfinite().all()]
    assert {key for key in logs if 'loss' in key} >= TERMS[method]
    assert any(key.startswith('student.decode') for key in logs)
    for name, member in model.members.items():
        for part in ('backbone', 'decode_head'):
            parameters = {f'members.{name}.{part}.{key}': value
                          for key, value in getattr(member, part).named_parameters()}  # fmt: skip
            # Some have no gradient at the first step: behind layer scales, or class tokens.
            moved = [
                key for key, value in parameters.items() if not torch.equal(value, before[key])
            ]
            assert len(moved) > 0.7 * len(parameters), (name, part)

    plain = MMSEG_MODELS.build(plain_config(paired).model)
    plain.load_state_dict(model.network('student').state_dict())


def test_the_matrix_has_every_family():
    used = {network for *both, _ in PAIRS for network in both}
    assert used == set(NETWORKS)
    assert {method for *_, method in PAIRS} == set(TERMS)
    assert len({(student, teacher) for student, teacher, _ in PAIRS}) >= 22


# ------------------------------------------------------------------------------------ refusals


REFUSED = {
    'segmenter/segmenter_vit-t_mask_8xb1-160k_ade20k-512x512.py': (
        r"member 'teacher': SegmenterMaskTransformerHead has no classifier 'conv_seg' .* choose"
    ),
    'knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512.py': (
        r"member 'teacher': IterativeDecodeHead has no classifier 'conv_seg' .* choose another"
    ),
    'maskformer/maskformer_r50-d32_8xb2-160k_ade20k-512x512.py': (
        r"member 'teacher': .* MaskFormerHead has no classifier .* Choose another decode head"
    ),
}


@pytest.mark.parametrize('network', quick_in(REFUSED, next(iter(REFUSED))))
def test_heads_without_a_classifier_are_refused(network):
    paired = pair(name_of('fcn-r50-ade'), f'mmseg::{network}', 'adm')
    drop_pretrained(paired.model)
    with pytest.raises(ValueError, match=REFUSED[network]):
        MODELS.build(paired.model)


@pytest.mark.parametrize(
    ('network', 'operator'),
    [
        ('point_rend/pointrend_r50_4xb4-160k_ade20k-512x512.py', 'point_sample'),
        ('psanet/psanet_r50-d8_4xb4-80k_ade20k-512x512.py', 'PSAMask'),
    ],
)
def test_networks_that_need_compiled_operators_are_refused(network, operator):
    if 'mmcv._ext' in sys.modules:
        pytest.skip('mmcv has its operators, or a stand-in for them')
    paired = pair(name_of('fcn-r50-ade'), f'mmseg::{network}', 'adm')
    drop_pretrained(paired.model)
    with pytest.raises(ValueError, match=f"member 'teacher': .*{operator}"):
        MODELS.build(paired.model)


@pytest.mark.parametrize(
    ('network', 'package'),
    [
        ('convnext/convnext-tiny_upernet_8xb2-amp-160k_ade20k-512x512.py', 'mmpretrain'),
        ('poolformer/fpn_poolformer_s12_8xb4-40k_ade20k-512x512.py', 'mmpretrain'),
        ('mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py', 'mmdet'),
    ],
)
def test_networks_of_a_package_that_is_not_there_are_refused(network, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    text = f'{network} cannot be read, because of what it imports: .*{package}.* Install'
    with pytest.raises(ValueError, match=text) as caught:
        pair(name_of('fcn-r50-ade'), f'mmseg::{network}', 'adm')
    assert not re.search('sys.path|\n', str(caught.value))


def test_a_timm_backbone_without_timm_is_refused(monkeypatch):
    monkeypatch.setattr('mmseg.models.backbones.timm_backbone.timm', None)
    paired = pair(name_of('psp-r18'), name_of('psp-r18'), 'adm')
    teacher = paired.model.members.teacher
    teacher.backbone = dict(type='TIMMBackbone', model_name='resnet18', features_only=True)
    drop_pretrained(paired.model)
    with pytest.raises(ValueError, match=r"member 'teacher': .*timm is not installed"):
        MODELS.build(paired.model)


def test_a_teacher_without_a_softmax_cross_entropy_is_refused_by_adm():
    paired = pair(name_of('psp-r18'), name_of('fast-scnn'), 'adm')
    drop_pretrained(paired.model)
    replace_sync_bn(paired)
    text = (
        r"DepthwiseSeparableFCNHead of 'teacher' has no softmax cross entropy .* set divergence to"
    )
    with pytest.raises(ValueError, match=text):
        MODELS.build(paired.model)


def test_another_number_of_classes_is_refused():
    paired = pair(name_of('psp-r18'), name_of('segformer-b0-ade'), 'adm')
    drop_pretrained(paired.model)
    text = r"'student': 19, 'teacher': 150.*set decode_head\.num_classes alike"
    with pytest.raises(ValueError, match=text):
        MODELS.build(paired.model)
