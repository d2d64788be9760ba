import copy
import os
import subprocess
import sys
from itertools import combinations

import pytest
import torch
from command_line import forget_managers
from factory import ROOT, build, demo_config, preprocessor
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.runner import Runner
from mmseg.apis import inference_model, init_model
from mmseg.registry import MODELS as MMSEG_MODELS

from mmseg_adm.checkpoint import RECORD, drop_pretrained, read_checkpoint, weights_record
from mmseg_adm.config import is_distillation_config
from mmseg_adm.export import (
    export_member,
    plain_checkpoint,
    plain_config,
)

pytestmark = pytest.mark.core

OFFLINE = ROOT / (
    'configs/adm/adm-offline_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
)
LARGE = ROOT / 'configs/adm/adm-offline_pspnet_r101-d8_pspnet_r18-d8_4xb4-80k_ade20k-512x512.py'
PLAIN = ROOT / 'configs/pspnet/pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
MEMBERS = ('student', 'teacher', 'mean_teacher')
# Run by an interpreter that cannot import the package.
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == 'mmseg_adm':
            raise ImportError('mmseg_adm is blocked')

sys.meta_path.insert(0, Blocker())
try:
    import mmseg_adm
except ImportError as error:
    assert str(error) == 'mmseg_adm is blocked'
else:
    raise SystemExit('mmseg_adm could be imported')
"""
ALONE = f"""{BLOCKED}
import traceback
import torch
from mmseg.apis import MMSegInferencer, inference_model, init_model

folder, image, threads, *members = sys.argv[1:]
torch.set_num_threads(int(threads))
found = dict()
for member in members:
    files = [folder + '/' + member + suffix for suffix in ('.py', '.pth')]
    model = init_model(*files, device='cpu')
    result = inference_model(model, image)
    found[member] = dict(
        logits=result.seg_logits.data,
        labels=result.pred_sem_seg.data,
        dataset_meta=model.dataset_meta,
    )
    try:
        inferencer = MMSegInferencer(*files, device='cpu')
        found[member]['inferred'] = inferencer(image)['predictions']
        found[member]['shown'] = dict(inferencer.visualizer.dataset_meta)
    except AssertionError:
        found[member]['problem'] = traceback.format_exc()
assert not any(name.partition('.')[0] == 'mmseg_adm' for name in sys.modules)
torch.save(found, folder + '/found.pth')
"""


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    """A distiller after one iteration, its config and its checkpoint."""
    work_dir = tmp_path_factory.mktemp('trained')
    config = demo_config(city, work_dir, iters=1, train_cfg__val_begin=1000)
    config.default_hooks.pop('student_checkpoint')
    config.model.members.mean_teacher = dict(type='mmseg_adm.EMATeacher', of='teacher')
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.eval(), config, work_dir / 'iter_1.pth'


@pytest.fixture(scope='module')
def image(city):
    return sorted(city.rglob('val/**/*_leftImg8bit.png'))[0]


@pytest.fixture(scope='module')
def alone(trained, image, tmp_path_factory):
    """What mmseg finds out about the exported members where the package is absent."""
    _, config, checkpoint = trained
    folder = tmp_path_factory.mktemp('exported')
    for member in MEMBERS:
        export_member(config, checkpoint, folder / f'{member}.pth', member)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    arguments = [str(folder), str(image), str(torch.get_num_threads()), *MEMBERS]
    done = subprocess.run(
        [sys.executable, '-I', '-c', ALONE, *arguments], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return torch.load(folder / 'found.pth', weights_only=False)


def batch_of(config, image):
    steps = [step for step in config.test_dataloader.dataset.pipeline
             if step['type'] != 'LoadAnnotations']  # fmt: skip
    return pseudo_collate([Compose(steps)(dict(img_path=str(image)))])


@pytest.fixture(scope='module')
def predictions(trained, image):
    """The distiller's own predictions of the same image."""
    model, config, _ = trained
    data = batch_of(config, image)
    with torch.no_grad():
        student = model.test_step(copy.deepcopy(data))
    others = {name: found[0] for name, found in model.predict_members(data, MEMBERS[1:]).items()}
    return {'student': student[0], **others}


@pytest.mark.parametrize('member', MEMBERS)
def test_mmseg_alone_predicts_the_same_to_the_bit(member, alone, predictions):
    expected, found = predictions[member], alone[member]
    assert found['logits'].std() > 0
    assert torch.equal(found['logits'], expected.seg_logits.data)
    assert torch.equal(found['labels'], expected.pred_sem_seg.data)


def test_the_members_predict_differently(alone):
    for first, second in combinations(MEMBERS, 2):
        assert not torch.equal(alone[first]['logits'], alone[second]['logits'])


@pytest.mark.parametrize('member', MEMBERS)
def test_the_inferencer_takes_the_exported_files(member, alone, predictions):
    assert 'problem' not in alone[member], alone[member]['problem']
    expected = predictions[member].pred_sem_seg.data[0].numpy()
    assert (alone[member]['inferred'] == expected).all()
    shown, meta = alone[member]['shown'], alone[member]['dataset_meta']
    assert list(shown['classes']) == meta['classes']
    assert [list(color) for color in shown['palette']] == meta['palette']
    assert len(meta['classes']) == len(meta['palette']) == 19


def test_classes_and_palette_are_those_of_the_data_set(alone, trained):
    metainfo = Runner.build_dataloader(trained[1].test_dataloader).dataset.metainfo
    meta = alone['student']['dataset_meta']
    assert meta['classes'] == list(metainfo['classes'])
    assert meta['palette'] == [list(color) for color in metainfo['palette']]


def test_the_student_is_what_is_exported_by_default(trained, tmp_path):
    model, config, checkpoint = trained
    target = export_member(config, checkpoint, tmp_path / 'new folder' / 'deployed')
    assert target == tmp_path / 'new folder' / 'deployed.pth'
    weights = torch.load(target, weights_only=True)['state_dict']
    expected = model.members['student'].state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    text = target.with_suffix('.py').read_text()
    assert 'mmseg_adm' not in text


def test_mmseg_alone_tests_the_student_as_the_run_did(trained, tmp_path):
    """As its tools/test.py does, with nothing but the two files and the data."""
    _, config, checkpoint = trained
    target = export_member(config, checkpoint, tmp_path / 'student.pth')

    def tested(config, weights):
        config.update(load_from=str(weights), work_dir=str(tmp_path / weights.stem))
        forget_managers()
        return Runner.from_cfg(config).test()

    expected = tested(copy.deepcopy(config), checkpoint)
    found = tested(Config.fromfile(target.with_suffix('.py')), target)
    assert set(found) == {'aAcc', 'mIoU', 'mAcc'}
    assert found == {name: expected[f'student/{name}'] for name in found}


@pytest.mark.parametrize('ours', ['dataset', 'metric'])
def test_a_test_set_that_only_this_package_has_is_left_out(ours, trained):
    config = copy.deepcopy(trained[1])
    if ours == 'dataset':
        config.test_dataloader.dataset.type = 'mmseg_adm.CamVidDataset'
    else:
        config.test_evaluator = [config.test_evaluator, dict(type='mmseg_adm.ClassIoUMetric')]
    plain = plain_config(config)
    assert set(plain.test_dataloader.dataset) == {'pipeline'}
    assert not {'test_evaluator', 'test_cfg'} & plain.keys()


def test_the_exported_config_prepares_images_as_the_distiller_does(trained, tmp_path):
    _, config, checkpoint = trained
    target = export_member(config, checkpoint, tmp_path / 'student.pth')
    plain = Config.fromfile(target.with_suffix('.py'))
    pipeline = config.test_dataloader.dataset.pipeline
    assert plain.test_pipeline == pipeline
    assert plain.test_dataloader.dataset.pipeline == pipeline
    assert plain.model.data_preprocessor == config.model.data_preprocessor


OWN_HEAD = """
from mmseg.models import PSPHead
from mmseg.registry import MODELS


@MODELS.register_module()
class OwnHead(PSPHead):
    pass
"""


@pytest.mark.slow
def test_a_network_of_the_users_own_is_built_where_the_package_is_absent(trained, tmp_path):
    _, config, checkpoint = trained
    (tmp_path / 'own_head.py').write_text(OWN_HEAD)
    (tmp_path / 'own_method.py').write_text('import mmseg_adm')
    config = copy.deepcopy(config)
    config.model.members.student.decode_head.type = 'OwnHead'
    config.custom_imports = dict(imports=['own_head', 'own_method', 'mmseg_adm.models'])
    target = export_member(config, checkpoint, tmp_path / 'student')
    plain = target.with_suffix('.py')
    assert 'mmseg_adm' not in plain.read_text()
    program = f"""{BLOCKED}
sys.path.insert(0, {str(tmp_path)!r})
from mmseg.apis import init_model
model = init_model({str(plain)!r}, {str(target)!r}, device='cpu')
print(type(model.decode_head).__name__)
"""
    done = subprocess.run(
        [sys.executable, '-I', '-c', program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'OwnHead'
    config.custom_imports.imports = ['mmseg_adm.models']
    assert 'custom_imports' not in plain_config(config)


def test_members_that_are_named_are_exported_as_in_full(trained, tmp_path):
    _, config, checkpoint = trained
    full, named = copy.deepcopy(config), copy.deepcopy(config)
    for member in ('student', 'teacher'):
        Config(dict(model=full.model.members[member])).dump(tmp_path / f'{member}_network.py')
    named.model.members = dict(
        student=str(tmp_path / 'student_network.py'),
        teacher=dict(config=str(tmp_path / 'teacher_network.py')),
        mean_teacher=full.model.members.mean_teacher,
        peer=None,
    )
    for member in MEMBERS:
        assert plain_config(named, member).model == plain_config(full, member).model
        files = [export_member(each, checkpoint, tmp_path / name, member)
                 for each, name in ((full, 'full'), (named, 'named'))]  # fmt: skip
        first, second = (torch.load(file, weights_only=True)['state_dict'] for file in files)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    with pytest.raises(ValueError, match="'peer' is not a member: student, teacher"):
        plain_config(named, 'peer')


def test_a_member_with_its_own_preprocessor_keeps_it(trained):
    config = copy.deepcopy(trained[1])
    config.model.members.teacher.data_preprocessor = dict(preprocessor(), mean=[1, 2, 3])
    assert plain_config(config, 'teacher').model.data_preprocessor.mean == [1, 2, 3]
    assert plain_config(config).model.data_preprocessor == config.model.data_preprocessor


def test_without_test_data_images_are_prepared_as_in_validation(trained):
    config = copy.deepcopy(trained[1])
    config.val_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile')]
    config.val_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=2, dataset=config.val_dataloader.dataset)],
    )
    assert len(plain_config(config).test_pipeline) > 1
    config.test_dataloader = None
    assert plain_config(config).test_pipeline == [dict(type='LoadImageFromFile')]


def test_nothing_but_the_two_files_is_written(trained, tmp_path):
    export_member(trained[1], trained[2], tmp_path / 'student.pth')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['student.pth', 'student.py']


# ------------------------------------------------------------------------------- a bridge


@pytest.fixture(scope='module')
def bridged(city, tmp_path_factory):
    """A distiller with a bridge after one iteration, its config and its checkpoint."""
    work_dir = tmp_path_factory.mktemp('bridged')
    config = demo_config(city, work_dir, iters=1, config=OFFLINE, train_cfg__val_begin=1000)
    config.default_hooks.pop('student_checkpoint')
    # The teacher has an auxiliary head, which a bridge does without.
    teacher = config.model.members.teacher
    head = copy.deepcopy(teacher.decode_head)
    teacher.auxiliary_head = head | dict(in_index=2, in_channels=head.in_channels // 2)
    teacher.checkpoint = str(work_dir / 'teacher.pth')
    weights = build(plain_config(config, 'teacher').model, seed=1).state_dict()
    torch.save({'state_dict': weights}, teacher.checkpoint)
    config.model.members.bridge = dict(type='mmseg_adm.TeacherBridge')
    config.model.methods = dict(sokd=dict(type='mmseg_adm.SOKD'))
    runner = Runner.from_cfg(config)
    runner.train()
    return runner.model.eval(), config, work_dir / 'iter_1.pth'


@pytest.mark.slow
def test_a_bridge_is_exported_with_what_it_shares(bridged, image, tmp_path):
    model, config, checkpoint = bridged
    config.dump(tmp_path / 'config.py')
    target = tmp_path / 'bridge.pth'
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/export_student.py'), str(tmp_path / 'config.py'),
         str(checkpoint), '--member', 'bridge', '--out', str(target)],
        env=os.environ | {'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(target) in done.stdout
    assert 'mmseg_adm' not in target.with_suffix('.py').read_text()

    alone = init_model(str(target.with_suffix('.py')), str(target), device='cpu')
    saved = torch.load(target, weights_only=True)
    alone.load_state_dict(saved['state_dict'])  # strictly, as init_model does not
    teacher, own = (model.network(name).state_dict() for name in ('teacher', 'bridge'))
    for key, value in saved['state_dict'].items():
        assert torch.equal(value, own.get(key, teacher[key])), key
    assert not torch.equal(
        own['decode_head.conv_seg.weight'], teacher['decode_head.conv_seg.weight']
    )
    (expected,) = model.predict_members(batch_of(config, image), ('bridge',))['bridge']
    found = inference_model(alone, str(image))
    assert found.seg_logits.data.std() > 0
    assert torch.equal(found.seg_logits.data, expected.seg_logits.data)
    assert list(alone.dataset_meta['classes']) == list(saved['meta']['dataset_meta']['classes'])


def test_a_bridge_is_not_exported_with_another_teacher(bridged, tmp_path):
    _, config, checkpoint = bridged
    config = copy.deepcopy(config)
    record = read_checkpoint(checkpoint)['meta'][RECORD]
    path = tmp_path / 'teacher.pth'
    weights = torch.load(config.model.members.teacher.checkpoint)['state_dict']
    torch.save({'state_dict': {key: value + 1 for key, value in weights.items()}}, path)
    assert weights_record('teacher') in record
    config.model.members.teacher.checkpoint = str(path)
    text = r"the run had other weights of 'teacher' than those in .*: set model\.members\.teacher"
    with pytest.raises(ValueError, match=text):
        export_member(config, checkpoint, tmp_path / 'bridge.pth', 'bridge')
    assert sorted(each.name for each in tmp_path.iterdir()) == ['teacher.pth']


def test_a_bridge_can_be_the_one_that_is_deployed(bridged, tmp_path):
    _, config, checkpoint = bridged
    config = copy.deepcopy(config)
    config.model.student = 'bridge'
    weights = torch.load(export_member(config, checkpoint, tmp_path / 'deployed'))['state_dict']
    own = torch.load(export_member(config, checkpoint, tmp_path / 'own', 'bridge'))['state_dict']
    assert weights.keys() == own.keys()


# ------------------------------------------------------------------------ a frozen member


def test_a_frozen_member_is_exported_from_its_own_checkpoint(bridged, image, tmp_path):
    model, config, checkpoint = bridged
    target = export_member(config, checkpoint, tmp_path / 'teacher', 'teacher')
    saved = torch.load(target, weights_only=True)
    own = model.network('teacher').state_dict()
    assert saved['state_dict'].keys() == {key for key in own if 'auxiliary_head' not in key}
    assert all(torch.equal(value, own[key]) for key, value in saved['state_dict'].items())
    alone = init_model(str(target.with_suffix('.py')), str(target), device='cpu')
    alone.load_state_dict(saved['state_dict'])  # strictly, as init_model does not
    (expected,) = model.predict_members(batch_of(config, image), ('teacher',))['teacher']
    found = inference_model(alone, str(image))
    assert torch.equal(found.seg_logits.data, expected.seg_logits.data)
    assert len(saved['meta']['dataset_meta']['classes']) == 19


def test_exporting_a_frozen_member_draws_no_random_numbers(bridged, tmp_path):
    _, config, checkpoint = bridged
    before = torch.get_rng_state()
    export_member(config, checkpoint, tmp_path / 'teacher', 'teacher')
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------------ averaged weights


@pytest.mark.parametrize('member', ('student', 'teacher'))
def test_of_a_run_with_averaged_weights_the_average_is_exported(member, city, tmp_path):
    config = demo_config(
        city, tmp_path / 'run', iters=3, train_cfg__val_begin=1000,
        custom_hooks=[dict(type='EMAHook', momentum=0.3)],
    )  # fmt: skip
    config.default_hooks.pop('student_checkpoint')
    runner = Runner.from_cfg(config)
    runner.train()
    average = next(hook.ema_model.module for hook in runner.hooks if hasattr(hook, 'ema_model'))
    target = export_member(config, tmp_path / 'run' / 'iter_3.pth', tmp_path / 'm', member)
    weights = torch.load(target, weights_only=True)['state_dict']
    averaged, raw = (each.members[member].state_dict() for each in (average, runner.model))
    assert weights.keys() == raw.keys()
    assert all(torch.equal(value, averaged[key]) for key, value in weights.items())
    different = [key for key, value in weights.items() if not torch.equal(value, raw[key])]
    assert set(different) >= {name for name, _ in average.members[member].named_parameters()}


# ------------------------------------------------------------------------ what is refused


def test_a_frozen_member_without_its_checkpoint_names_the_setting(bridged, tmp_path):
    _, config, checkpoint = bridged
    config = copy.deepcopy(config)
    config.model.members.teacher.checkpoint = None
    with pytest.raises(ValueError, match=r"'teacher' is frozen, .* set model\.members\.teacher\."):
        export_member(config, checkpoint, tmp_path / 'teacher.pth', 'teacher')
    config.model.members.teacher.checkpoint = str(tmp_path / 'gone.pth')
    text = r"weights of the frozen 'teacher' are not at .*gone\.pth: set model\.members\.teacher\."
    with pytest.raises(FileNotFoundError, match=text):
        export_member(config, checkpoint, tmp_path / 'teacher.pth', 'teacher')
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_other_members_leaves_nothing_behind(city, tmp_path):
    config = demo_config(city, tmp_path)
    weights = {'members.student.backbone.weight': torch.ones(1)}
    torch.save({'state_dict': weights, 'meta': {}}, tmp_path / 'iter_1.pth')
    text = r"holds no member 'teacher' \(it holds: student\): is it one of this config\?"
    with pytest.raises(ValueError, match=text):
        export_member(config, tmp_path / 'iter_1.pth', tmp_path / 'teacher.pth', 'teacher')
    assert [path.name for path in tmp_path.iterdir()] == ['iter_1.pth']


def test_an_unknown_member_is_refused(trained, tmp_path):
    _, config, checkpoint = trained
    with pytest.raises(ValueError, match="'peer' is not a member: student, teacher"):
        export_member(config, checkpoint, tmp_path / 'peer.pth', 'peer')


def test_a_plain_config_is_refused(trained, tmp_path):
    config = Config.fromfile(PLAIN)
    assert not is_distillation_config(config)
    with pytest.raises(ValueError, match='is a EncoderDecoder, not a KnowledgeDistiller: its'):
        export_member(config, trained[2], tmp_path / 'student.pth')


def test_a_missing_checkpoint_is_named(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'checkpoint not found: .*iter_9\.pth'):
        export_member(trained[1], tmp_path / 'iter_9.pth', tmp_path / 'student.pth')
    assert not (tmp_path / 'student.py').exists()


# ------------------------------------------------------------------------ what is dropped


@pytest.mark.parametrize('member', ('student', 'teacher'))
def test_a_plain_config_has_no_checkpoints(member):
    config = Config.fromfile(LARGE)
    assert config.model.members.teacher.frozen
    assert config.model.members.student.backbone.init_cfg.type == 'Pretrained'
    before = copy.deepcopy(config._cfg_dict)
    plain = plain_config(config, member)
    for word in ('Pretrained', 'open-mmlab', 'frozen', 'checkpoint', '.pth'):
        assert word not in plain.pretty_text
    assert config._cfg_dict == before
    assert MMSEG_MODELS.build(plain.model).decode_head.num_classes == 150


REMOTE, LOCAL = 'open-mmlab://resnet18_v1c', 'weights/resnet18.pth'


def pretrained_config():
    return dict(
        pretrained=REMOTE,
        members=dict(
            student=dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=REMOTE))),
            teacher=dict(
                frozen=True,
                checkpoint=LOCAL,
                backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=LOCAL)),
                auxiliary_head=[dict(init_cfg=dict(type='Pretrained', checkpoint=REMOTE))],
                neck=dict(init_cfg=dict(type='Normal', std=0.01)),
            ),
        ),
    )


@pytest.mark.parametrize('remote_only', [False, True])
def test_drop_pretrained(remote_only):
    config = pretrained_config()
    drop_pretrained(config, remote_only)
    local = LOCAL if remote_only else None
    init_cfg = dict(type='Pretrained', checkpoint=LOCAL) if remote_only else None
    assert config == dict(
        pretrained=None,
        members=dict(
            student=dict(backbone=dict(init_cfg=None)),
            teacher=dict(
                frozen=True,
                checkpoint=local,
                backbone=dict(init_cfg=init_cfg),
                auxiliary_head=[dict(init_cfg=None)],
                neck=dict(init_cfg=dict(type='Normal', std=0.01)),
            ),
        ),
    )


def test_drop_pretrained_in_a_list_of_initializations():
    normal = dict(type='Normal', layer='Conv2d', std=0.01)
    config = dict(init_cfg=[normal, dict(type='Pretrained', checkpoint=REMOTE)])
    drop_pretrained(config)
    assert config['init_cfg'] in (None, [normal])


def test_a_checkpoint_without_classes_does_not_claim_to_have_none():
    weights = {'members.student.weight': torch.ones(1)}
    assert plain_checkpoint({'state_dict': weights}, 'student')['meta'] == {}
