"""Members that are named by a config."""

import pytest
from factory import distiller_config, losses_of, preprocessor, raw_batch, segmentor
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_adm.models.members import resolve_members

pytestmark = pytest.mark.core
PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.fixture
def plain(tmp_path):
    """A config of one network, written to a file."""

    def write(**settings):
        path = tmp_path / 'plain.py'
        model = segmentor(4, data_preprocessor=dict(preprocessor(), **settings))
        Config(dict(model=model)).dump(path)
        return str(path)

    return write


def test_a_name_stands_for_the_network_of_its_config():
    members = resolve_members(dict(members=dict(student=PSPNET), data_preprocessor=None))
    assert members['student'].type == 'EncoderDecoder'
    assert members['student'].decode_head.type == 'PSPHead'
    assert members['student'].backbone.depth == 18
    assert members['student'].data_preprocessor.mean == [123.675, 116.28, 103.53]


def test_what_differs_stands_beside_the_name():
    member = dict(
        config=PSPNET, frozen=True, checkpoint='t.pth', decode_head=dict(num_classes=11),
        auxiliary_head=None,
    )  # fmt: skip
    resolved = resolve_members(dict(members=dict(teacher=member)))['teacher']
    assert (resolved.frozen, resolved.checkpoint) == (True, 't.pth')
    assert resolved.decode_head.num_classes == 11
    assert resolved.decode_head.channels == 128
    assert resolved.auxiliary_head is None
    assert 'config' not in resolved


def test_another_backbone_replaces_the_named_one():
    backbone = dict(_delete_=True, type='MobileNetV2', widen_factor=1.0)
    member = dict(config=PSPNET, backbone=backbone)
    resolved = resolve_members(dict(members=dict(student=member)))['student']
    assert resolved.backbone == dict(type='MobileNetV2', widen_factor=1.0)


def test_members_in_full_stay_and_none_is_dropped():
    full = segmentor(4)
    assert resolve_members(dict(members=dict(student=full, teacher=None))) == dict(student=full)


def test_resolving_twice_changes_nothing():
    model = dict(
        members=dict(student=PSPNET, teacher=segmentor(4)), data_preprocessor=preprocessor()
    )
    once = resolve_members(model)
    assert resolve_members(dict(model, members=once)) == once


def test_a_network_keeps_its_normalisation_and_takes_the_size(plain):
    shared = preprocessor((32, 64))
    named = dict(student=plain())
    assert (
        'data_preprocessor'
        not in resolve_members(dict(members=named, data_preprocessor=shared))['student']
    )
    named = dict(student=plain(mean=[0.0, 0.0, 0.0], size=(512, 512)))
    own = resolve_members(dict(members=named, data_preprocessor=shared))['student']
    assert own.data_preprocessor.mean == [0.0, 0.0, 0.0]
    assert own.data_preprocessor.size == (32, 64)


def test_a_distiller_builds_and_trains_named_members(plain):
    config = distiller_config()
    config['members'] = dict(student=plain(), teacher=dict(config=plain(), backbone=dict(depth=18)))
    losses = losses_of(MODELS.build(config), raw_batch())
    assert {'student.decode.loss_ce', 'teacher.decode.loss_ce'} <= losses.keys()


def test_a_wrong_name_is_refused_with_the_nearest():
    with pytest.raises(FileNotFoundError, match=r'Nearest: .*pspnet_r18-d8'):
        resolve_members(dict(members=dict(student='mmseg::pspnet/pspnet_r18-d8.py')))
