"""Members that are named by a config."""

import sys

import pytest
from factory import distiller_config, losses_of, preprocessor, raw_batch, segmentor
from mmengine.config import Config
from mmengine.registry import MODELS

from mmseg_adm.commands.flags import config_of
from mmseg_adm.commands.main import parse
from mmseg_adm.config import resolve_members

pytestmark = pytest.mark.core
PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.fixture
def plain(tmp_path):
    """A config of one network, written to a file."""

    def write(name='plain', imports=(), **settings):
        path = tmp_path / f'{name}.py'
        model = segmentor(4, data_preprocessor=dict(preprocessor(), **settings))
        Config(dict(model=model, custom_imports=dict(imports=list(imports)))).dump(path)
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


def test_a_network_keeps_its_normalization_and_takes_the_size(plain):
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


def loaded(path, *flags):
    return config_of(parse(['train', str(path), *flags]))


def test_the_written_config_imports_what_its_members_need(plain, tmp_path, monkeypatch):
    for name in ('own_student', 'own_teacher'):
        (tmp_path / f'{name}.py').write_text('')
    monkeypatch.syspath_prepend(str(tmp_path))
    teacher = dict(config=plain('teacher', ['own_teacher']))
    members = dict(student=plain('student', ['own_student']), teacher=teacher)
    config = Config(
        dict(model=distiller_config(members=members), custom_imports=dict(imports='json'))
    )
    config.dump(tmp_path / 'config.py')
    found = loaded(tmp_path / 'config.py')
    assert found.custom_imports.imports == ['json', 'own_student', 'own_teacher']
    found.dump(tmp_path / 'written.py')
    (tmp_path / 'own_teacher.py').unlink()
    monkeypatch.delitem(sys.modules, 'own_teacher')
    with pytest.raises(ValueError, match='own_teacher'):
        loaded(tmp_path / 'written.py')


def test_overrides_reach_members_that_are_named(plain, tmp_path):
    Config(dict(model=distiller_config(members=dict(student=plain())))).dump(tmp_path / 'config.py')
    flags = ('--cfg-options', 'model.members.student.checkpoint=s.pth',
             'model.members.student.backbone.depth=34')  # fmt: skip
    student = loaded(tmp_path / 'config.py', *flags).model.members.student
    assert (student.checkpoint, student.backbone.depth) == ('s.pth', 34)
    other = plain('other', mean=[0.0, 0.0, 0.0])
    flags = ('--cfg-options', f'model.members.student={other}')
    student = loaded(tmp_path / 'config.py', *flags).model.members.student
    assert student.data_preprocessor.mean == [0.0, 0.0, 0.0]
