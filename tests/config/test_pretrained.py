"""Configs that run without a download."""

import pytest
from factory import ROOT
from mmengine.config import Config

from mmseg_adm.commands.launch import load_config
from mmseg_adm.config import drop_downloads

WARM = (
    ROOT / 'configs/adm/adm-finetune_pspnet_r101-d8_pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
)
ALONE = ROOT / 'configs/pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.mark.parametrize(
    ('given', 'expected'), [('https://example.org/a.pth', None), ('a.pth', 'a.pth')]
)
def test_what_a_run_starts_from(given, expected):
    config = Config.fromfile(ALONE)
    config.load_from = given
    drop_downloads(config)
    assert config.load_from == expected
    assert config.model.backbone.init_cfg is None


def test_a_warm_teacher_is_not_left_untrained():
    with pytest.raises(ValueError, match=r"'teacher' goes on from http.* and would stay untrained"):
        load_config(WARM, pretrained=False)
    options = {'model.members.teacher.checkpoint': 'teacher.pth'}
    config = load_config(WARM, options, pretrained=False)
    assert config.model.members.teacher.checkpoint == 'teacher.pth'
