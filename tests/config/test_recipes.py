"""Methods as they are set up in ``configs/_base_/methods``."""

import inspect

import pytest
from factory import ROOT
from mmengine.config import Config
from plain_configs import other, pair, plain

from mmseg_adm.config import read_config, recipe_of, recipes, wants_trained_teacher
from mmseg_adm.models.methods import ADM

pytestmark = pytest.mark.core

METHODS = ROOT / 'configs/_base_/methods'
TRAINED = {
    'adm-finetune', 'adm-offline', 'at', 'consensus-cwd', 'cwd', 'dist', 'fitnet', 'ifvd', 'kd',
    'mgd', 'skd', 'sokd',
}  # fmt: skip


def test_what_pairs_a_student_and_a_teacher_follows_from_the_folder():
    assert set(recipes()) == {path.stem for path in METHODS.glob('*.py')} - {'ffsd'}
    assert set(recipes()) == TRAINED | {'adm', 'dml', 'kdcl', 'switokd'}


def test_a_method_knows_whether_its_teacher_is_trained():
    assert {name for name in recipes() if wants_trained_teacher(recipe_of(name))} == TRAINED


def test_adm_means_one_thing():
    """The class, its configs and the pair; the rows of tables are read in ``test_plan``."""
    options = {name: each.default for name, each in inspect.signature(ADM).parameters.items()}
    assert (options['consensus'], options['divergence']) == ('modulation', 'modulation')
    for name, own in {'adm': {}, 'adm-finetune': {}, 'adm-offline': {'divergence': None}}.items():
        shipped = [Config.fromfile(path) for path in ROOT.glob(f'configs/adm/{name}_*.py')]
        assert len(shipped) == 6
        for config in (recipe_of(name), pair(plain(), other(), name, 'teacher.pth'), *shipped):
            assert config.model.methods.adm == dict(type='mmseg_adm.ADM', **own)


def test_a_recipe_is_what_the_method_decides_about_a_run():
    recipe = recipe_of('adm-finetune')
    base = Config.fromfile(METHODS / 'adm-finetune.py')
    assert recipe.model.methods == base.distillation.methods
    assert recipe.optim_wrapper.paramwise_cfg == base.paramwise_cfg
    assert recipe.default_hooks == base.default_hooks
    assert not {'distillation', 'paramwise_cfg'} & set(recipe)


def test_methods_of_ones_own_are_for_a_student_and_a_teacher_in_training():
    recipe = recipe_of(dict(dml=dict(type='mmseg_adm.DML')))
    assert recipe.model.members == dict(student={}, teacher={})
    assert not wants_trained_teacher(recipe)
    runtime = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py')
    assert recipe.default_hooks == runtime.default_hooks


def test_a_config_elsewhere_inherits_a_method_by_name(tmp_path):
    (tmp_path / 'mine.py').write_text(
        """_base_ = [
    'mmseg_adm::_base_/models/pspnet_r101-d8-trained_pspnet_r18-d8.py',
    'mmseg_adm::_base_/datasets/cityscapes_512x1024.py',
    'mmseg_adm::_base_/schedules/schedule_80k.py',
    'mmseg_adm::_base_/methods/cwd.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), **_base_.distillation)
"""
    )
    shipped = 'cwd/cwd_pspnet_r101-d8_pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    expected = Config.fromfile(ROOT / 'configs' / shipped)
    assert read_config(tmp_path / 'mine.py').to_dict() == expected.to_dict()
