"""The shipped configs: their names say what they hold, and what is compared is alike."""

import copy
import re
import shutil
from functools import cache
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlparse

import mmseg
import pytest
import torch
from factory import ROOT, build, narrow, raw_batch, save_segmentor
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from mmseg_adm.checkpoint import is_remote
from mmseg_adm.commands.launch import replace_sync_bn
from mmseg_adm.config import drop_downloads, is_bridge, is_distillation_config, resolve_config
from mmseg_adm.config.members import MEMBER_OPTIONS
from mmseg_adm.models import methods

HEADS = {'pspnet': 'PSPHead', 'deeplabv3': 'ASPPHead', 'fpn': 'FPNHead'}
METHODS = {name.lower(): name for name in methods.__all__ if not name.endswith('Method')}
# A reading of ours, which is not the paper's idea.
METHODS['consensus_cwd'] = 'ADM'
ONLINE = ('adm', 'dml', 'ffsd', 'kdcl', 'switokd')
# What a method is used beside.
BESIDE = {'adm': 'dml', 'adm-finetune': 'dml', 'adm-offline': 'kd', 'ifvd': 'kd', 'skd': 'kd'}
WARM = ('adm-finetune', 'consensus-cwd')
# What a leaf sets otherwise than the base of its method does.
OTHERWISE = {
    ('cwd', 'ade20k'): dict(cwd=dict(weight=10.0)),
    ('consensus-cwd', 'ade20k'): dict(consensus_cwd=dict(consensus_weight=10.0)),
    ('mgd', 'ade20k'): dict(mgd=dict(weight=42.0)),
    ('mgd', 'camvid'): dict(mgd=dict(weight=0.25)),
}
# How many terms can be zero: of KDCL's networks the best learns nothing, SwitOKD's teacher waits.
IDLE_TERMS = {'kdcl': 1, 'switokd': 1}

CONFIGS = {path.stem: path for path in sorted(ROOT.glob('configs/[!_]*/*.py'))}
ALONE = [stem for stem, path in CONFIGS.items() if path.parent.name in HEADS]
DISTILLED = [stem for stem in CONFIGS if stem not in ALONE]
# With a teacher that is trained already.
TRAINED = [stem for stem in DISTILLED if stem.split('_')[0] not in ONLINE]
DATASETS = sorted(ROOT.glob('configs/_base_/datasets/*.py'))
CLASSES = {'cityscapes': 19, 'synthetic-city': 19, 'ade20k': 150, 'camvid': 11}
# The data set's type, the variable that moves its root, and where the root is without it.
SOURCES = {
    'cityscapes': ('CityscapesDataset', 'CITYSCAPES_ROOT', 'data/cityscapes'),
    'ade20k': ('ADE20KDataset', 'ADE20K_ROOT', 'data/ade/ADEChallengeData2016'),
    'camvid': ('mmseg_adm.CamVidDataset', 'CAMVID_ROOT', 'data/camvid'),
    'synthetic-city': ('CityscapesDataset', 'SYNTHETIC_CITY_ROOT', 'data/synthetic_city'),
}
NETWORK = r'(?P<{0}>(?:(?:pspnet|deeplabv3)_r\d+(?:-w\d+)?-d8|fpn_r\d+-w\d+))'
SETTING = (
    r'(?P<setting>\dxb(?P<batch>\d+)-(?P<iters>80k|2k|demo)_(?P<data>[a-z0-9-]+)-(?P<crop>\d+x\d+))'
)
NAMES = {
    True: f'(?P<method>{"|".join(METHODS).replace("_", "-")})(?P<variant>-offline|-finetune)?_'
    f'(?:{NETWORK.format("teacher")}_)?{NETWORK.format("student")}_{SETTING}',
    False: f'{NETWORK.format("network")}_{SETTING}',
}
# What methods, and networks alone, have in common on a setting.
SHARED = ('train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg',
          'randomness')  # fmt: skip
each_config = pytest.mark.parametrize('stem', CONFIGS)


@cache
def load(stem: str) -> Config:
    """As a file gives it; not to be changed."""
    return Config.fromfile(CONFIGS[stem])


def parts_of(stem: str) -> dict[str, str]:
    match = re.fullmatch(NAMES[stem in DISTILLED], stem)
    assert match, f'{stem} does not say what it holds'
    return match.groupdict()


def networks_of(config: Config) -> dict[str, dict]:
    """The plain segmentor configs by member: a bridge has none of its own."""
    if not is_distillation_config(config):
        return {'': config.model}
    return {name: member for name, member in config.model.members.items() if not is_bridge(member)}


def named_network(stem: str, member: str) -> str:
    """What the name calls a member's network; FFSD's are all of one kind, the student's."""
    parts = parts_of(stem)
    return parts.get(member or 'network') or parts['student']


def trained_together(stem: str) -> tuple[Config, dict[str, str]]:
    """The ADM config on the same setting that holds a stem's networks, and its parts."""
    parts = parts_of(stem)
    wanted = {parts.get('network') or parts['student'], parts.get('teacher')} - {None}
    (found,) = (
        other for other in DISTILLED
        if other.startswith('adm_') and parts_of(other)['setting'] == parts['setting']
        and wanted <= {parts_of(other)['student'], parts_of(other)['teacher']}
    )  # fmt: skip
    return load(found), parts_of(found)


def one_per(stems: list[str], *keys: str) -> list[str]:
    """The first config of each kind, where kinds are told apart by parts of the name."""
    kinds = {tuple(parts_of(stem)[key] for key in keys): stem for stem in reversed(stems)}
    return sorted(kinds.values())


def dataset_of(config: Config, split: str) -> dict:
    dataset = config[f'{split}_dataloader'].dataset
    return dataset.dataset if split == 'train' else dataset


def checkpoints_in(node: object) -> list[str]:
    """Every checkpoint that a model config names, at any depth."""
    if isinstance(node, dict):
        own = [node[key] for key in ('checkpoint', 'pretrained') if node.get(key)]
        return own + checkpoints_in(list(node.values()))
    if isinstance(node, (list, tuple)):
        return [name for child in node for name in checkpoints_in(child)]
    return []


# ----------------------------------------------------------------------------------- what is there


def test_both_kinds_of_config_are_found():
    assert len(DISTILLED) == 72
    assert len(ALONE) == 14


def test_no_config_needs_those_of_mmseg():
    paths = sorted(ROOT.glob('configs/**/*.py'))
    assert len(paths) > len(CONFIGS)
    assert not [path for path in paths if 'mmseg::' in path.read_text()]


@each_config
def test_the_name_says_setting_data_and_networks(stem):
    parts, config = parts_of(stem), load(stem)
    crop = tuple(map(int, parts['crop'].split('x')))
    assert config.train_dataloader.batch_size == int(parts['batch'])
    assert config.model.data_preprocessor.size == crop
    crops = [step for step in dataset_of(config, 'train').pipeline if step.type == 'RandomCrop']
    assert [step.crop_size for step in crops] == [crop]
    iters = {'80k': 80_000, '2k': 2_000, 'demo': 600}[parts['iters']]
    assert config.train_cfg.max_iters == iters
    assert [scheduler.end for scheduler in config.param_scheduler] == [iters]
    assert iters % config.train_cfg.val_interval == 0
    for split in ('train', 'val', 'test'):
        assert dataset_of(config, split).type == SOURCES[parts['data']][0]
    for member, network in networks_of(config).items():
        architecture, backbone = named_network(stem, member).split('_')
        depth, width = re.fullmatch(r'r(\d+)(?:-w(\d+))?(?:-d8)?', backbone).groups()
        assert network.decode_head.type == HEADS[architecture]
        assert network.backbone.depth == int(depth)
        assert network.backbone.get('base_channels', 64) == int(width or 64)
        # Without a stride for the last two stages: an eighth of the input's size.
        dilated = backbone.endswith('-d8')
        assert network.backbone.strides == ((1, 2, 1, 1) if dilated else (1, 2, 2, 2))
        assert network.backbone.dilations == ((1, 1, 2, 4) if dilated else (1, 1, 1, 1))
        heads = [network.decode_head, network.get('auxiliary_head')]
        assert {head.num_classes for head in heads if head} == {CLASSES[parts['data']]}


@pytest.mark.parametrize('stem', DISTILLED)
def test_the_name_says_methods_and_members(stem):
    method, variant = stem.split('_')[0], parts_of(stem)['method'].replace('-', '_')
    config = load(stem)
    model = config.model
    assert CONFIGS[stem].parent.name == variant
    assert set(model.methods) == {variant, BESIDE.get(method)} - {None}
    for name, settings in model.methods.items():
        assert settings.type == f'mmseg_adm.{METHODS[name]}'
    members = {'ffsd': ['leader', 'peer1', 'peer2'], 'sokd': ['bridge', 'student', 'teacher']}
    assert sorted(model.members) == members.get(method, ['student', 'teacher'])
    frozen = [name for name in model.members if model.members[name].get('frozen')]
    assert frozen == ([] if method in (*ONLINE, *WARM) else ['teacher'])
    student = 'leader' if method == 'ffsd' else 'student'
    assert model.get('student', 'student') == student
    assert config.default_hooks.checkpoint.save_best == f'{student}/mIoU'


def test_alone_is_what_trains_together():
    for stem in ALONE:
        if stem.startswith('fpn'):  # The demo's, which the command pairs.
            continue
        alone, (together, parts) = load(stem), trained_together(stem)
        member = 'student' if parts['student'] == parts_of(stem)['network'] else 'teacher'
        assert CONFIGS[stem].parent.name == parts_of(stem)['network'].split('_')[0]
        network = alone.model.to_dict()
        assert network.pop('data_preprocessor') == together.model.data_preprocessor.to_dict()
        assert network == together.model.members[member].to_dict(), stem
        for key in SHARED:
            assert alone[key] == together[key], (stem, key)


def test_methods_are_compared_on_the_same_networks():
    for stem in DISTILLED:
        config, (online, _) = load(stem), trained_together(stem)
        for name, network in networks_of(config).items():
            plain = {key: value for key, value in network.items() if key not in MEMBER_OPTIONS}
            expected = online.model.members['teacher' if name == 'teacher' else 'student']
            assert plain == dict(expected), (stem, name)
        for key in SHARED:
            if key != 'optim_wrapper' or parts_of(stem)['method'] != 'ffsd':
                found = copy.deepcopy(config[key])
                if stem.startswith(WARM) and key == 'optim_wrapper':
                    rates = found.pop('paramwise_cfg')
                    assert rates == dict(custom_keys={'members.teacher': dict(lr_mult=0.1)})
                assert found == online[key], (stem, key)


# ------------------------------------------------------------------------------------- methods


def test_a_method_is_set_up_as_in_its_base():
    found = set()
    for stem in DISTILLED:
        method, data = stem.split('_')[0], parts_of(stem)['data']
        base = Config.fromfile(ROOT / f'configs/_base_/methods/{method}.py')
        expected = Config(dict(methods=base.distillation.methods))
        if other := OTHERWISE.get((method, data)):
            expected.merge_from_dict(dict(methods=other))
            found.add((method, data))
        config = load(stem)
        if method == 'ffsd':
            expected.methods.ffsd.norm_cfg = networks_of(config)['leader'].backbone.norm_cfg
        else:
            assert config.default_hooks == base.default_hooks, stem
        assert config.model.methods == expected.methods, stem
        for name, settings in base.distillation.members.items():
            assert settings.items() <= config.model.members[name].items(), (stem, name)
    assert found == set(OTHERWISE)


def test_ffsd_trains_its_own_modules_with_adam_and_ramps_up():
    for stem in (stem for stem in DISTILLED if stem.startswith('ffsd')):
        config, (online, _) = load(stem), trained_together(stem)
        assert config.optim_wrapper == dict(
            constructor='mmseg_adm.GroupOptimWrapperConstructor',
            recipe=dict(optimizer=online.optim_wrapper.optimizer),
            self_distillation=dict(
                modules=['methods.ffsd.self_distillation'], optimizer=dict(type='Adam', lr=1e-3)
            ),
        )
        ramp_iters = round(0.017 * config.train_cfg.max_iters)
        ramp = dict(ramp='exponential', ramp_iters=ramp_iters)
        assert config.default_hooks.schedule.schedules == dict(ffsd=ramp)


def test_mgd_weighs_as_published():
    for stem in (stem for stem in DISTILLED if stem.startswith('mgd')):
        model = load(stem).model
        height, width = (size // 8 for size in model.data_preprocessor.size)
        published = 2e-5 * model.members.teacher.decode_head.channels * height * width
        assert model.methods.mgd.weight == pytest.approx(published, rel=0.02)


# --------------------------------------------------------------------------------------- it trains


def small(stem: str) -> Config:
    """Narrow networks without anything to download, on crops of 32x48."""
    config = copy.deepcopy(load(stem))
    for network in networks_of(config).values():
        if network.get('checkpoint'):
            network.checkpoint = 'teacher.pth'
    drop_downloads(config)
    # The step runs on the CPU, also where there is a GPU.
    with patch.object(torch.cuda, 'is_available', return_value=False):
        replace_sync_bn(config)
    for name, network in networks_of(config).items():
        narrow(network, 8 if name == 'teacher' else 4)
    config.model.data_preprocessor.size = (32, 48)
    return config


# Every method, every network, every number of classes.
STEPS = {
    *one_per(DISTILLED, 'method', 'variant'),
    *one_per([stem for stem in DISTILLED if stem.startswith('adm_')], 'student', 'data'),
}


@pytest.mark.slow
@pytest.mark.parametrize('stem', sorted(STEPS))
def test_trains_one_step(stem, tmp_path):
    config = small(stem)
    networks = networks_of(config)
    frozen = [name for name, network in networks.items() if network.get('frozen')]
    if stem in TRAINED:
        plain = {
            key: each for key, each in networks['teacher'].items() if key not in MEMBER_OPTIONS
        }
        networks['teacher'].checkpoint = save_segmentor(tmp_path / 'teacher.pth', plain)
    model = build(config.model)
    model.pauses_members = True  # a hook's task, and there are no hooks here
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    batch = model.data_preprocessor(raw_batch(classes=CLASSES[parts_of(stem)['data']]), True)
    with optim_wrapper.optim_context(model):
        total, logged = model.parse_losses(model(**batch, mode='loss'))
    optim_wrapper.backward(total)

    parameters = dict(model.named_parameters())
    assert not [name for name, value in logged.items() if not torch.isfinite(value)]
    for method in config.model.methods:
        terms = [value for name, value in logged.items() if name.startswith(f'{method}.loss')]
        assert terms
        assert all(term >= 0 for term in terms)
        assert sum(bool(term == 0) for term in terms) <= IDLE_TERMS.get(method, 0)
    assert not [name for name, value in parameters.items() if value.grad is None]
    assert not [name for name in parameters if name.split('.')[1] in frozen]
    # zero_init_residual: at first nothing flows into the blocks, only around them.
    ends = ('decode_head.conv_seg.weight', 'backbone.stem.0.weight')
    learnt = [name for name in parameters if name.endswith(ends)]
    # A bridge has no stem: it begins with the last stage.
    bridges = len(config.model.members) - len(networks)
    assert len(learnt) == len(ends) * (len(networks) - len(frozen)) + bridges
    assert all(parameters[name].grad.abs().max() > 0 for name in learnt)

    before = {name: parameters[name].detach().clone() for name in learnt}
    optim_wrapper.step()
    assert not [name for name in learnt if parameters[name].equal(before[name])]
    assert not [name for name, value in parameters.items() if not torch.isfinite(value).all()]


# --------------------------------------------------------------------------- weights and downloads


@pytest.mark.parametrize(
    'stem', one_per([stem for stem in TRAINED if '80k' in stem], 'teacher', 'data')
)
def test_the_teacher_is_published_with_the_installed_mmseg(stem):
    parts, checkpoint = parts_of(stem), load(stem).model.members.teacher.checkpoint
    assert is_remote(checkpoint)
    architecture = parts['teacher'].split('_')[0]
    folder = f'{parts["teacher"]}_{parts["crop"]}_{parts["iters"]}_{parts["data"]}'
    path = urlparse(checkpoint).path
    assert path.startswith(f'/mmsegmentation/v0.5/{architecture}/{folder}/{folder}_')
    metafile = Path(mmseg.__file__).parent / '.mim' / 'configs' / architecture / 'metafile.yaml'
    if not metafile.is_file():
        pytest.skip(f'the installed mmseg has no {metafile}')
    # The distributions publish the same files on servers of their own.
    published = re.findall(r'Weights: (\S+)', metafile.read_text())
    assert path in [urlparse(address).path for address in published]


@pytest.mark.parametrize(
    'stem', one_per([stem for stem in TRAINED if '80k' not in stem], 'teacher', 'data')
)
def test_the_teacher_is_the_one_trained_alone(stem, monkeypatch):
    parts = parts_of(stem)
    monkeypatch.delenv('TEACHER_CHECKPOINT', raising=False)
    alone = f'{parts["teacher"]}_{parts["setting"]}'
    default = f'work_dirs/{alone}/iter_{load(alone).train_cfg.max_iters}.pth'
    assert Config.fromfile(CONFIGS[stem]).model.members.teacher.checkpoint == default
    monkeypatch.setenv('TEACHER_CHECKPOINT', '/elsewhere/teacher.pth')
    moved = Config.fromfile(CONFIGS[stem])
    assert moved.model.members.teacher.checkpoint == '/elsewhere/teacher.pth'


def test_all_methods_learn_from_the_same_teacher():
    first = {}
    for stem in TRAINED:
        parts, checkpoint = parts_of(stem), load(stem).model.members.teacher.checkpoint
        assert first.setdefault((parts['teacher'], parts['setting']), checkpoint) == checkpoint
    trains = [load(stem) for stem in DISTILLED if stem not in TRAINED]
    members = [member for config in trains for member in config.model.members.values()]
    assert not [member for member in members if 'checkpoint' in member]


def test_without_downloads_nothing_is_left_to_download():
    some = [*one_per(ALONE, 'network', 'data'), *one_per(DISTILLED, 'method', 'student', 'data')]
    for stem in some:
        config = copy.deepcopy(load(stem))
        if stem.startswith(WARM):
            config.model.members.teacher.checkpoint = 'teacher.pth'
        local = [name for name in checkpoints_in(config.model) if not is_remote(name)]
        drop_downloads(config)
        assert checkpoints_in(config.model) == local


@pytest.mark.parametrize('path', DATASETS, ids=lambda path: path.stem)
def test_the_data_root_follows_the_environment(path, monkeypatch):
    data = path.stem.rsplit('_', 1)[0].replace('_', '-')
    kind, variable, default = SOURCES[data]
    for _, other, _ in SOURCES.values():
        monkeypatch.delenv(other, raising=False)
    for root in (default, '/elsewhere/data'):
        if root != default:
            monkeypatch.setenv(variable, root)
        config = Config.fromfile(path)
        datasets = [dataset_of(config, split) for split in ('train', 'val', 'test')]
        assert [dataset.type for dataset in datasets] == [kind] * 3
        assert [dataset.data_root for dataset in datasets] == [root] * 3


# ---------------------------------------------------------------------------------- where they lie


def test_they_load_from_another_place(tmp_path):
    folder = shutil.copytree(ROOT / 'configs', tmp_path / 'site-packages/mmseg_adm/.mim/configs')
    for stem in one_per(DISTILLED, 'method', 'variant'):
        moved = folder / CONFIGS[stem].relative_to(ROOT / 'configs')
        assert Config.fromfile(moved).to_dict() == load(stem).to_dict()


def test_every_part_is_overridden_by_name():
    stem = next(stem for stem in DISTILLED if stem.startswith('consensus-cwd'))
    options = {
        'model.methods.consensus_cwd.consensus_weight': 2,
        'model.members.teacher.checkpoint': 'mine.pth',
        'optim_wrapper.paramwise_cfg': None,
    }
    config = resolve_config(load(stem), options)
    assert config.model.methods.consensus_cwd.consensus_weight == 2
    assert config.model.methods.consensus_cwd.consensus == 'channelwise'
    assert config.model.members.teacher.checkpoint == 'mine.pth'
    assert config.optim_wrapper.paramwise_cfg is None
