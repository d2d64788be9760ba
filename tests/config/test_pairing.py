import copy
import subprocess
import sys

import pytest
import torch
from factory import ROOT, build, losses_of, raw_batch, save_segmentor, segmentor
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.optim import build_optim_wrapper
from plain_configs import MEAN, PSP, SEGFORMER, other, pair, plain

import mmseg_adm
from mmseg_adm.commands.flags import config_of
from mmseg_adm.commands.launch import prepare_runner, replace_sync_bn
from mmseg_adm.commands.main import parse
from mmseg_adm.config import paired_name

pytestmark = pytest.mark.core


# ------------------------------------------------------------------------------- who gives what


def test_the_students_config_gives_what_the_run_needs():
    student, teacher = plain(log_level='DEBUG', randomness=dict(seed=5)), other()
    paired = pair(student, teacher)
    assert paired.model.type == 'mmseg_adm.KnowledgeDistiller'
    for key in ('val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator',
                'train_cfg', 'log_level', 'randomness', 'default_scope'):  # fmt: skip
        assert paired[key] == student[key], key
    assert paired.model.members.student.backbone.base_channels == 4
    assert paired.model.members.teacher.backbone.base_channels == 8
    assert paired.train_dataloader.batch_size == 2
    assert paired.train_dataloader.sampler == dict(type='mmseg_adm.StreamSampler', shuffle=True)
    assert paired.train_dataloader.dataset == dict(
        type='mmseg_adm.StreamDataset', dataset=student.train_dataloader.dataset
    )
    assert paired.val_cfg.type == 'mmseg_adm.MembersValLoop'
    assert paired.test_cfg.type == 'mmseg_adm.MembersTestLoop'


def test_what_the_runner_does_not_read_is_left_out():
    paired = pair(plain(crop_size=(1, 2), work_dir='here', load_from=None, resume=True), other())
    assert not {'crop_size', 'work_dir', 'load_from', 'resume'} & set(paired)


def test_the_configs_are_left_as_they_were():
    student, teacher = plain(), other()
    before = copy.deepcopy(student.to_dict()), copy.deepcopy(teacher.to_dict())
    paired = pair(student, teacher)
    paired.model.members.student.backbone.depth = 50
    paired.train_dataloader.batch_size = 64
    assert (student.to_dict(), teacher.to_dict()) == before


def test_the_teachers_data_with_its_crop_size():
    student, teacher = plain(), other(tta_pipeline=[dict(type='TestTimeAug')])
    paired = pair(student, teacher, dataset_from='teacher')
    assert paired.train_dataloader.dataset.dataset == teacher.train_dataloader.dataset
    for key in ('val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator',
                'tta_pipeline'):  # fmt: skip
        assert paired[key] == teacher[key], key
    assert paired.train_cfg == student.train_cfg
    assert paired.model.data_preprocessor.size == (64, 64)
    assert paired.model.data_preprocessor.mean == MEAN
    assert paired.model.members.teacher.data_preprocessor.size == (64, 64)
    assert 'tta_pipeline' not in pair(student, teacher)


def test_each_member_normalizes_its_own_way_and_pads_alike():
    members = pair(plain(), other()).model.members
    own = members.teacher.data_preprocessor
    assert own.mean == [127.5] * 3
    assert own.size == (32, 48)
    assert 'data_preprocessor' not in members.student
    same = plain('data/other', size=(64, 64))
    assert 'data_preprocessor' not in pair(plain(), same).model.members.teacher


def test_a_preprocessor_beside_the_model():
    student = plain()
    student.data_preprocessor = student.model.pop('data_preprocessor')
    assert pair(student, other()).model == pair(plain(), other()).model
    student.pop('data_preprocessor')
    with pytest.raises(ValueError, match=r'has no model\.data_preprocessor: say how'):
        pair(student, other())


def test_hooks_are_kept_and_completed():
    custom = [dict(type='EMAHook', momentum=0.1)]
    paired = pair(plain(custom_hooks=custom), other())
    hooks = paired.default_hooks
    assert paired.custom_hooks == custom
    assert hooks.timer.type == 'IterTimerHook'
    assert hooks.checkpoint.interval == 7
    runtime = Config.fromfile(ROOT / 'configs/_base_/default_runtime.py').default_hooks
    ours = {name for name, hook in runtime.items() if hook.type.startswith('mmseg_adm.')}
    assert {'schedule', 'student_checkpoint', 'data_stream'} <= ours <= set(hooks)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, dict(type='mmseg_adm.LogProcessor', by_epoch=False)),
        (
            dict(log_processor=dict(type='LogProcessor', window_size=5)),
            dict(type='mmseg_adm.LogProcessor', window_size=5),
        ),
        (dict(log_processor=dict(type='mine.Own')), dict(type='mine.Own')),
    ],
)
def test_the_log_of_a_pair_tells_its_members_apart(given, expected):
    assert pair(plain(**given), other()).log_processor == expected


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ('mIoU', 'student/mIoU'),
        ('val/mIoU', 'student/val/mIoU'),
        (['auto', 'mIoU'], ['auto', 'student/mIoU']),
        (['mIoU', 'aAcc'], ['student/mIoU', 'student/aAcc']),
        ('auto', 'auto'),
        (None, None),
    ],
)
def test_the_best_checkpoint_is_the_students(given, expected):
    hooks = dict(checkpoint=dict(type='CheckpointHook', save_best=given))
    found = pair(plain(default_hooks=hooks), other()).default_hooks.checkpoint.save_best
    assert found == expected


@pytest.mark.parametrize(
    'sampler',
    [
        'InfiniteSampler',
        'mmengine.InfiniteSampler',
        'mmengine.dataset.InfiniteSampler',
        InfiniteSampler,
        'DefaultSampler',
        DefaultSampler,
    ],
)
def test_the_stream_takes_the_place_of_mmengines_samplers(sampler):
    student = plain()
    student.train_dataloader.sampler = dict(type=sampler, shuffle=False)
    loader = pair(student, other()).train_dataloader
    assert loader.sampler == dict(type='mmseg_adm.StreamSampler', shuffle=False)
    assert loader.dataset.type == 'mmseg_adm.StreamDataset'


def test_a_sampler_of_ones_own_stays():
    student = plain()
    student.train_dataloader.sampler = dict(type='my_package.MySampler')
    loader = pair(student, other()).train_dataloader
    assert loader == student.train_dataloader


def test_early_stopping_watches_the_student():
    stopping = dict(type='mmengine.EarlyStoppingHook', monitor='mIoU', patience=2)
    student = plain(
        custom_hooks=[stopping, dict(type='EMAHook')],
        default_hooks=dict(stopping=dict(stopping, type='EarlyStoppingHook'), timer=None),
    )
    paired = pair(student, other())
    found, average = paired.custom_hooks
    assert (found.monitor, found.patience) == ('student/mIoU', 2)
    assert average == dict(type='EMAHook')
    assert paired.default_hooks.stopping.monitor == 'student/mIoU'
    assert student.custom_hooks[0].monitor == 'mIoU'


def test_whatever_waits_for_a_metric_waits_for_the_members():
    own = dict(type='AnyHook', monitor='loss')
    plateau = dict(type='ReduceOnPlateauLR', monitor='mIoU', rule='greater', by_epoch=False)
    student = plain(
        custom_hooks=[
            dict(type=CheckpointHook, save_best=('mIoU', 'aAcc')),
            dict(type=EarlyStoppingHook, monitor='mIoU'),
            own,
        ],
        default_hooks=dict(logger=dict(interval=10)),
        param_scheduler=plateau,
    )
    paired = pair(student, other(param_scheduler=[dict(plateau, monitor='aAcc')]))
    best, stopping, untouched = paired.custom_hooks
    assert best.save_best == ['student/mIoU', 'student/aAcc']
    assert stopping.monitor == 'student/mIoU'
    assert untouched == own
    monitors = {name: part.monitor for name, (part,) in paired.param_scheduler.items()}
    assert monitors == dict(student='student/mIoU', teacher='teacher/aAcc', rest='student/mIoU')
    alike = pair(student, other(param_scheduler=plateau, optim_wrapper=student.optim_wrapper))
    assert alike.param_scheduler.monitor == 'student/mIoU'


def test_custom_imports_of_both():
    student = plain(custom_imports=dict(imports=['json', 'csv'], allow_failed_imports=True))
    teacher = other(custom_imports=dict(imports='csv'), find_unused_parameters=True)
    paired = pair(student, teacher)
    assert paired.custom_imports == dict(imports=['json', 'csv'], allow_failed_imports=False)
    assert paired.find_unused_parameters
    assert not {'custom_imports', 'find_unused_parameters'} & set(pair(plain(), other()))


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ([(['json', 'absent'], True)], (['json', 'absent'], True)),
        ([(['absent'], True), (['csv', 'absent'], True)], (['absent', 'csv'], True)),
        # One flag for all: what may be absent and is would be refused.
        ([(['json', 'absent'], True), (['csv'], False)], (['json', 'csv'], False)),
        ([(['json', 'csv'], True), (['csv'], False)], (['json', 'csv'], False)),
    ],
)  # fmt: skip
def test_modules_that_may_be_absent(given, expected, tmp_path):
    roles = [dict(custom_imports=dict(imports=names, allow_failed_imports=allowed))
             for names, allowed in given]  # fmt: skip
    paired = pair(plain(**roles[0]), other(**(roles[1] if len(roles) > 1 else {})))
    assert (paired.custom_imports.imports, paired.custom_imports.allow_failed_imports) == expected
    paired.dump(tmp_path / 'paired.py')
    Config.fromfile(tmp_path / 'paired.py')


def test_weights_that_a_config_starts_from():
    student, teacher = plain(load_from='student.pth'), other(load_from='teacher.pth')
    members = pair(student, teacher).model.members
    assert (members.student.checkpoint, members.teacher.checkpoint) == (
        'student.pth', 'teacher.pth',
    )  # fmt: skip
    members = pair(student, teacher, 'kd', 'better.pth').model.members
    assert members.teacher.checkpoint == 'better.pth'
    assert members.teacher.frozen
    assert pair(student, teacher, 'kd').model.members.teacher.checkpoint == 'teacher.pth'
    assert 'checkpoint' not in pair(plain(), other()).model.members.student


def test_what_a_config_loads_may_be_for_other_classes_unless_it_teaches():
    """As in mmseg; a checkpoint that is named for a teacher is a trained one."""
    student, teacher = plain(load_from='student.pth'), other(load_from='teacher.pth')
    for method, checkpoint, expected in (
        ('adm', None, (True, True)),
        ('adm', 'better.pth', (True, None)),
        ('kd', None, (True, None)),
        ('adm-finetune', None, (True, None)),
    ):
        members = pair(student, teacher, method, checkpoint).model.members
        found = tuple(members[name].get('new_classifier') for name in ('student', 'teacher'))
        assert found == expected, method


def test_precision_of_validation_and_synchronized_normalization_stay():
    half = dict(type='ValLoop', fp16=True)
    paired = pair(plain(val_cfg=half, sync_bn='torch'), other())
    assert paired.val_cfg == dict(type='mmseg_adm.MembersValLoop', fp16=True)
    assert paired.test_cfg == dict(type='mmseg_adm.MembersTestLoop')
    assert paired.sync_bn == 'torch'
    # Either network's, like parameters without a gradient.
    assert pair(plain(), other(sync_bn='torch')).sync_bn == 'torch'
    replace_sync_bn(paired)
    assert ('sync_bn' in paired) == torch.cuda.is_available()


# ------------------------------------------------------------------------------------- methods


@pytest.mark.parametrize('method', ['cwd', 'sokd', 'adm-finetune', 'adm'])
def test_a_method_is_set_up_as_in_its_base(method):
    base = Config.fromfile(ROOT / f'configs/_base_/methods/{method}.py')
    paired = pair(PSP, PSP.replace('r18', 'r101'), method, 'teacher.pth')
    model, wanted = paired.model, base.distillation
    assert model.methods == wanted.methods
    assert list(model.members) == list(wanted.members)
    assert model.members.teacher.get('frozen') == wanted.members.teacher.get('frozen')
    for name in set(wanted.members) - {'student', 'teacher'}:
        assert model.members[name] == wanted.members[name]
    assert paired.default_hooks.schedule == base.default_hooks.schedule


def test_methods_of_ones_own():
    methods = dict(skd=dict(type='mmseg_adm.SKD'), dml=dict(type='mmseg_adm.DML', tau=2.0))
    paired = pair(plain(), other(), methods)
    assert paired.model.methods == methods
    # The order in which the written config will hold them.
    assert list(paired.model.methods) == ['dml', 'skd']


def test_a_teacher_that_trains_starts_from_its_checkpoint(tmp_path):
    path = save_segmentor(tmp_path / 'teacher.pth', segmentor(8))
    paired = pair(plain(), other(), teacher_checkpoint=path)
    assert 'frozen' not in paired.model.members.teacher
    model = build(paired.model)
    loaded = build(segmentor(8), seed=1).state_dict()
    assert all((value == loaded[key]).all()
               for key, value in model.network('teacher').state_dict().items())  # fmt: skip


def test_a_warm_teacher_goes_on_slowly(tmp_path):
    path = save_segmentor(tmp_path / 'teacher.pth', segmentor(8))
    networks = plain(), other()
    rate = networks[1].optim_wrapper.optimizer.lr
    paired = pair(*networks, 'adm-finetune', path)
    assert paired.optim_wrapper.student.optimizer == networks[0].optim_wrapper.optimizer
    assert paired.optim_wrapper.teacher.optimizer.lr == pytest.approx(0.1 * rate)
    assert networks[1].optim_wrapper.optimizer.lr == rate
    assert paired.param_scheduler['teacher'] == paired.param_scheduler['student']
    model = build(paired.model)
    loaded = build(segmentor(8), seed=1).state_dict()
    assert all((value == loaded[key]).all()
               for key, value in model.network('teacher').state_dict().items())  # fmt: skip
    build_optim_wrapper(model, paired.optim_wrapper)
    started = pair(networks[0], Config(dict(networks[1], load_from=path)), 'adm-finetune')
    assert started.model.members.teacher.checkpoint == path


@pytest.mark.parametrize('method', ['cwd', 'sokd', 'adm-finetune'])
def test_a_trained_teacher_without_weights_is_refused(method):
    with pytest.raises(ValueError, match=f"'{method}' learns from .*--teacher-checkpoint"):
        pair(plain(), other(), method)


# ----------------------------------------------------------------------------------- it trains


@pytest.mark.parametrize('written', [False, True])
def test_the_pair_trains_from_memory_and_from_its_file(written, tmp_path):
    paired = pair(plain(), other(), dict(mgd=dict(type='mmseg_adm.MGD'),
                                         fitnet=dict(type='mmseg_adm.FitNet'),
                                         dml=dict(type='mmseg_adm.DML')))  # fmt: skip
    expected = losses_of(build(paired.model), raw_batch())
    if written:
        paired.dump(tmp_path / 'paired.py')
        paired = Config.fromfile(tmp_path / 'paired.py')
    model = build(paired.model)
    found = losses_of(model, raw_batch())
    assert {key: float(value) for key, value in found.items()} == {
        key: float(value) for key, value in expected.items()
    }
    model.train_step(raw_batch(), build_optim_wrapper(model, paired.optim_wrapper))


@pytest.mark.parametrize(('student', 'teacher'), [(PSP, SEGFORMER), (SEGFORMER, PSP)])
def test_convolutions_and_a_transformer_by_name(student, teacher):
    paired = pair(student, teacher)
    optimizers = {
        name: paired.optim_wrapper[name].optimizer.type for name in ('student', 'teacher')
    }
    kinds = {PSP: 'SGD', SEGFORMER: 'AdamW'}
    assert optimizers == dict(student=kinds[student], teacher=kinds[teacher])
    iters = {PSP: 80000, SEGFORMER: 160000}[student]
    assert paired.train_cfg.max_iters == iters
    for schedule in paired.param_scheduler.values():
        assert schedule[-1].end == iters
    warm = paired.param_scheduler['student' if student == SEGFORMER else 'teacher'][0]
    assert (warm.type, warm.end) == ('LinearLR', 1500)
    size = {PSP: (512, 1024), SEGFORMER: (1024, 1024)}[student]
    assert paired.model.data_preprocessor.size == size
    swapped = pair(student, teacher, dataset_from='teacher')
    assert (
        swapped.model.data_preprocessor.size == {PSP: (512, 1024), SEGFORMER: (1024, 1024)}[teacher]
    )


def test_from_python():
    assert mmseg_adm.pair is mmseg_adm.config.pair
    with pytest.raises(AttributeError, match="module 'mmseg_adm' has no attribute 'pear'"):
        _ = mmseg_adm.pear


def test_importing_the_package_is_light():
    code = "import sys, mmseg_adm; print({'torch', 'mmseg', 'mmengine'} & set(sys.modules))"
    found = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == 'set()', found.stderr


# ------------------------------------------------------------------------------------ refusals


def test_what_is_not_there():
    with pytest.raises(FileNotFoundError, match=r'config not found: none\.py'):
        pair('none.py', PSP)
    with pytest.raises(FileNotFoundError, match='Nearest: pspnet/pspnet_r18'):
        pair(PSP, PSP.replace('512x1024', '512x1025'))


def test_a_distillation_config_is_no_network():
    path = (
        ROOT
        / 'configs/adm/adm_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
    )
    with pytest.raises(ValueError, match=r'the config of the teacher, .*, pairs networks already'):
        pair(PSP, path)


def test_a_config_without_a_model():
    with pytest.raises(ValueError, match=r'the config of the student, .*, has no model'):
        pair(ROOT / 'configs/_base_/default_runtime.py', PSP)


def test_an_unknown_method_and_source_of_data():
    with pytest.raises(
        ValueError, match=r"no method is called 'amd'; (.|\n)*\n  adm  .*\n(.|\n)*\n  switokd  "
    ):
        pair(PSP, PSP, 'amd')
    with pytest.raises(ValueError, match=r'\(ffsd\) have configs of their own'):
        pair(PSP, PSP, 'ffsd')
    with pytest.raises(ValueError, match="must be 'student' or 'teacher', got 'both'"):
        pair(PSP, PSP, dataset_from='both')


def test_a_pair_is_called_by_its_networks_and_method(tmp_path):
    unet = 'mmseg::unet/unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64.py'
    assert paired_name('here/own.py', unet, 'cwd') == (
        'cwd_unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64_own'
    )
    assert paired_name(unet.removesuffix('.py'), 'own.py', 'adm').endswith('40k_drive-64x64')
    plain().dump(tmp_path / 'own.py')
    methods = dict(dml=dict(type='mmseg_adm.DML'), mgd=dict(type='mmseg_adm.MGD'))
    paired = pair(Config.fromfile(tmp_path / 'own.py'), other(), methods)
    # A Runner writes a config that has a file name into its work dir.
    assert paired.filename == 'dml-mgd_teacher_own.py'
    assert pair(tmp_path / 'own.py', tmp_path / 'own.py').filename == 'adm_own_own.py'


def test_a_pair_without_downloads():
    remote = 'https://example.org/teacher.pth'
    init = dict(type='Pretrained', checkpoint='open-mmlab://resnet18_v1c')
    student, teacher = plain(load_from='student.pth'), other(load_from=remote)
    student.model.backbone.init_cfg = init
    members = pair(student, teacher, pretrained=False).model.members
    assert members.student.checkpoint == 'student.pth'
    assert members.student.backbone.init_cfg is None
    assert members.teacher.checkpoint is None
    members = pair(student, teacher).model.members
    assert (members.student.backbone.init_cfg, members.teacher.checkpoint) == (init, remote)


def test_a_warm_teacher_is_not_left_untrained():
    text = r"'teacher' goes on from https://\S+ at a low learning rate, and would stay untrained"
    with pytest.raises(ValueError, match=text):
        pair(plain(), other(), 'adm-finetune', 'https://example.org/teacher.pth', pretrained=False)
    paired = pair(plain(), other(), 'adm-finetune', 'teacher.pth', pretrained=False)
    assert paired.model.members.teacher.checkpoint == 'teacher.pth'


# --------------------------------------------------------------------------------------- flags


def parsed(*flags: str) -> Config:
    args = parse(['train', *flags])
    args.check(args)
    return config_of(args)


def test_flags_make_the_same_pair():
    config = parsed(
        '--student', PSP, '--teacher', SEGFORMER, '--method', 'adm', '--dataset-from', 'teacher'
    )
    expected = pair(PSP, SEGFORMER, dataset_from='teacher')
    assert config.to_dict() == expected.to_dict()
    assert config.filename == expected.filename
    assert config.filename == (
        'adm_segformer_mit-b0_8xb1-160k_cityscapes-1024x1024_'
        'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    )


def test_overrides_reach_the_pair():
    config = parsed('--student', PSP, '--teacher', SEGFORMER, '--method', 'adm', '--no-pretrained',
                    '--cfg-options',
                    'model.members.teacher.decode_head.num_classes=7',
                    'model.methods.adm.consensus_weight=2')  # fmt: skip
    assert config.model.members.teacher.decode_head.num_classes == 7
    assert config.model.methods.adm.consensus_weight == 2
    assert 'https' not in config.pretty_text
    replace_sync_bn(config)
    with pytest.raises(ValueError, match=r"'student': 19, 'teacher': 7.*num_classes alike"):
        build(config.model)


@pytest.mark.parametrize(
    ('flags', 'text'),
    [
        ([], 'name a config, or two networks: --student CONFIG --teacher CONFIG'),
        (['--student', PSP], '--student needs a --teacher'),
        (['--teacher', PSP], '--teacher belong to a pair: name its --student too'),
        ([PSP, '--method', 'adm', '--dataset-from', 'student'], '--method, --dataset-from belong'),
        ([PSP, '--teacher-checkpoint', 'x.pth'], '--teacher-checkpoint belong'),
        ([PSP, '--student', PSP, '--teacher', PSP], 'is a config: --student and --teacher stand'),
        (
            ['--student', PSP, '--teacher', PSP],
            r'name the --method .*\n  adm  .*(\n  .*)*\n  switokd  ',
        ),
        (['--student', PSP, '--teacher', PSP, '--method', 'kd'], r'\(--teacher-checkpoint\)'),
    ],
)
def test_flags_that_do_not_fit_together(flags, text):
    with pytest.raises(ValueError, match=text):
        parsed(*flags)


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        ({}, None),
        (dict(find_unused_parameters=True), True),
        (dict(model_wrapper_cfg=dict(find_unused_parameters=True)), True),
    ],
)
def test_members_that_leave_parameters_unused_train_distributed(given, expected, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.setattr('mmseg_adm.commands.launch.is_distributed', lambda: True)
    config = pair(plain(env_cfg={}, **given), other())
    prepare_runner(config, 'w', 'pytorch')
    assert config.model_wrapper_cfg.type == 'MMDistributedDataParallel'
    assert config.model_wrapper_cfg.get('find_unused_parameters') == expected
