from pathlib import Path

import pytest
from factory import ROOT
from mmengine.config import Config

from mmseg_adm.config.names import install_config_names, read_config
from mmseg_adm.paths import configs_of, find_config

pytestmark = pytest.mark.core

PSP = 'pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


def test_configs_of_this_project_and_of_mmseg():
    assert configs_of('mmseg_adm') == ROOT / 'configs'
    assert (configs_of('mmseg') / '_base_' / 'models').is_dir()


def test_a_package_without_configs():
    with pytest.raises(FileNotFoundError, match='nothing_of_this_name is not installed'):
        configs_of('nothing_of_this_name')
    with pytest.raises(FileNotFoundError, match='torch is installed without its configs, sought'):
        configs_of('torch')


@pytest.mark.parametrize('name', [f'mmseg::{PSP}', f'mmseg::{PSP.removesuffix(".py")}'])
def test_a_name_leads_to_a_file(name):
    assert find_config(name) == configs_of('mmseg') / PSP


def test_a_path_leads_to_itself():
    path = ROOT / 'configs/_base_/default_runtime.py'
    assert find_config(path) == find_config(str(path)) == path


def test_what_is_not_there_is_named():
    with pytest.raises(FileNotFoundError, match=r'config not found: configs/none\.py'):
        find_config('configs/none.py')
    with pytest.raises(FileNotFoundError, match='have names in mmseg, mmseg_adm only'):
        find_config('mmdet::pspnet')
    wrong = PSP.replace('r18', 'r19')
    with pytest.raises(FileNotFoundError) as caught:
        find_config(f'mmseg::{wrong}')
    assert f"mmseg has no config '{wrong}'. Nearest: " in str(caught.value)
    assert PSP in str(caught.value)


def test_a_name_far_from_all():
    with pytest.raises(FileNotFoundError, match='Nearest: none'):
        find_config('mmseg_adm::%%%%')


def write(folder: Path, text: str) -> Path:
    path = folder / 'mine.py'
    path.write_text(text)
    return path


@pytest.mark.parametrize('base', [f"'mmseg::{PSP}'", f"['mmseg::{PSP}']"])
def test_a_config_inherits_from_a_name(base, tmp_path):
    path = write(tmp_path, f'_base_ = {base}\nmodel = dict(decode_head=dict(num_classes=7))\n')
    config = read_config(path)
    expected = Config.fromfile(configs_of('mmseg') / PSP)
    expected.model.decode_head.num_classes = 7
    assert config.to_dict() == expected.to_dict()


def test_a_name_beside_a_path_and_its_variables(tmp_path):
    (tmp_path / 'other.py').write_text('answer = 42\n')
    path = write(
        tmp_path,
        f"_base_ = ['./other.py', 'mmseg::{PSP}']\n"
        'crop = _base_.crop_size\ntwice = 2 * _base_.answer\n',
    )
    config = read_config(path)
    assert config.crop == (512, 1024)
    assert config.twice == 84
    assert config.model.backbone.depth == 18


def test_names_are_installed_once():
    install_config_names()
    first = Config._get_cfg_path
    install_config_names()
    assert Config._get_cfg_path is first


def test_a_wrong_name_to_inherit_from(tmp_path):
    path = write(tmp_path, "_base_ = 'mmseg::pspnet/none.py'\n")
    with pytest.raises(FileNotFoundError, match=r"mmseg has no config 'pspnet/none\.py'. Nearest"):
        read_config(path)


def test_a_failed_import_is_named(tmp_path):
    path = write(
        tmp_path, "custom_imports = dict(imports=['nothing_of_this_name'])\nmodel = dict()"
    )
    text = r"mine\.py cannot be read, .*No module named 'nothing_of_this_name'\. Install that, or"
    with pytest.raises(ValueError, match=text) as caught:
        read_config(path)
    assert '\n' not in str(caught.value)
