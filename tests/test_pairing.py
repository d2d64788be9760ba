import copy
import subprocess
import sys

import pytest
from factory import ROOT, build, losses_of, raw_batch, save_segmentor, segmentor
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

import mmseg_adm
from mmseg_adm.commands.flags import (
    add_runner_flags,
    config_parser,
    load_config,
    prepare_runner,
    replace_sync_bn,
)
from mmseg_adm.config import pair, paired_name, recipes

pytestmark = pytest.mark.core

PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
GROUPS = 'mmseg_adm.GroupOptimWrapperConstructor'
MEAN = [123.675, 116.28, 103.53]
SGD = dict(type='SGD', lr=0.01, momentum=0.9)
ADAMW = dict(type='AdamW', lr=6e-5, weight_decay=0.01)


def poly(end=100, begin=0, **options):
    return dict(type='PolyLR', power=0.9, begin=begin, end=end, by_epoch=False) | options


def warm_up(end):
    return dict(type='LinearLR', start_factor=1e-6, begin=0, end=end, by_epoch=False)


def loader(root, sampler='InfiniteSampler', crop=(32, 48)):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomCrop', crop_size=crop)]
    dataset = dict(type='CityscapesDataset', data_root=root, pipeline=pipeline)
    return dict(batch_size=2, dataset=dataset, sampler=dict(type=sampler, shuffle=True))


def plain(root='data/own', iters=100, width=4, size=(32, 48), mean=None, **options) -> Config:
    """The config of one small network, as mmseg writes them."""
    normalisation = dict(mean=mean or MEAN, std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
    preprocessor = dict(type='SegDataPreProcessor', pad_val=0, seg_pad_val=255, size=size)
    config = dict(
        default_scope='mmseg',
        model=dict(segmentor(width), data_preprocessor=preprocessor | normalisation),
        train_dataloader=loader(root, crop=size),
        val_dataloader=loader(root, 'DefaultSampler'),
        test_dataloader=loader(root, 'DefaultSampler'),
        val_evaluator=dict(type='IoUMetric', iou_metrics=[root]),
        test_evaluator=dict(type='IoUMetric', iou_metrics=[root]),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=10),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=SGD, clip_grad=None),
        param_scheduler=[poly(iters)],
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=7, save_best='mIoU'),
        ),
    )
    return Config(copy.deepcopy(config | options))


def other(**options) -> Config:
    """Another network, with everything else too."""
    options = dict(optim_wrapper=dict(type='OptimWrapper', optimizer=ADAMW)) | options
    return plain('data/other', 200, 8, (64, 64), [127.5] * 3, **options)


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


def test_each_member_normalises_its_own_way_and_pads_alike():
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
        ('mIoU', ['student/mIoU']),
        (['mIoU', 'aAcc'], ['student/mIoU', 'student/aAcc']),
        ('auto', 'auto'),
        (None, None),
    ],
)
def test_the_best_checkpoint_is_the_students(given, expected):
    hooks = dict(checkpoint=dict(type='CheckpointHook', save_best=given))
    found = pair(plain(default_hooks=hooks), other()).default_hooks.checkpoint.save_best
    assert found == expected


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


# ---------------------------------------------------------------------------------- optimisers


def test_one_optimiser_where_both_agree():
    paired = pair(plain(), plain('data/other', width=8, iters=200))
    assert paired.optim_wrapper == plain().optim_wrapper
    assert paired.param_scheduler == [poly(100)]


def test_a_group_for_each_where_they_differ():
    paramwise = dict(custom_keys=dict(head=dict(lr_mult=10.0)))
    wrapper = dict(type='OptimWrapper', optimizer=ADAMW, paramwise_cfg=paramwise,
                   clip_grad=dict(max_norm=1))  # fmt: skip
    schedule = [warm_up(15), poly(200, 15, power=1.0)]
    paired = pair(plain(), other(optim_wrapper=wrapper, param_scheduler=schedule))
    assert paired.optim_wrapper == dict(
        constructor=GROUPS,
        student=dict(optimizer=SGD, clip_grad=None),
        teacher=dict(optimizer=ADAMW, paramwise_cfg=paramwise, clip_grad=dict(max_norm=1)),
        rest=dict(optimizer=SGD),
    )
    assert paired.param_scheduler == dict(
        student=[poly(100)],
        teacher=[warm_up(15), poly(100, 15, power=1.0)],
        rest=[poly(100)],
    )


@pytest.mark.parametrize(
    ('given', 'stretched'),
    [
        ([poly(200)], [poly(100)]),
        (poly(200, power=2.0), [poly(100, power=2.0)]),
        ([warm_up(150)], [warm_up(100)]),
        ([warm_up(20), poly(120, 20)], [warm_up(20), poly(100, 20)]),
        ([warm_up(120), poly(200, 120)], [warm_up(100)]),
        (
            [dict(type='MultiStepLR', milestones=[120, 180], by_epoch=False)],
            [dict(type='MultiStepLR', milestones=[60, 90], by_epoch=False)],
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=190, begin=10, end=200, by_epoch=False)],
            [dict(type='CosineAnnealingLR', T_max=90, begin=10, end=100, by_epoch=False)],
        ),
        (
            [warm_up(10), dict(type='CosineAnnealingLR', T_max=200, begin=10, by_epoch=False)],
            [warm_up(10), dict(type='CosineAnnealingLR', T_max=100, begin=10, by_epoch=False)],
        ),
        (
            [dict(type='CosineAnnealingLR', T_max=50, begin=10, by_epoch=False)],
            [dict(type='CosineAnnealingLR', T_max=50, begin=10, by_epoch=False)],
        ),
        ([], []),
    ],
)
def test_the_teachers_schedule_is_stretched(given, stretched):
    paired = pair(plain(), other(param_scheduler=given))
    assert paired.param_scheduler.teacher == stretched


def test_accumulation_is_the_students():
    def counting(optimizer, counts):
        return dict(type='OptimWrapper', optimizer=optimizer, accumulative_counts=counts)

    wrapper = pair(
        plain(optim_wrapper=counting(SGD, 4)), other(optim_wrapper=counting(ADAMW, 2))
    ).optim_wrapper
    assert wrapper.accumulative_counts == 4
    assert 'accumulative_counts' not in wrapper.student
    assert 'accumulative_counts' not in wrapper.teacher
    wrapper = pair(plain(), other(optim_wrapper=counting(ADAMW, 2))).optim_wrapper
    assert 'accumulative_counts' not in wrapper


@pytest.mark.parametrize('amp', [('student',), ('teacher',), ('student', 'teacher')])
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (dict(), dict(dtype='float16')),
        (dict(loss_scale='dynamic'), dict(dtype='float16')),
        (dict(loss_scale=512.0), dict(dtype='float16', loss_scale=dict(init_scale=512.0))),
        (dict(dtype='bfloat16'), dict(dtype='bfloat16')),
    ],
)
def test_mixed_precision_of_one_is_that_of_both(amp, options, expected):
    wrappers = {}
    for role, optimizer in (('student', SGD), ('teacher', ADAMW)):
        wrapper = dict(type='OptimWrapper', optimizer=optimizer)
        wrappers[role] = wrapper | dict(options, type='AmpOptimWrapper') if role in amp else wrapper
    found = pair(
        plain(optim_wrapper=wrappers['student']), other(optim_wrapper=wrappers['teacher'])
    ).optim_wrapper
    assert found == dict(
        constructor=GROUPS, student=dict(optimizer=SGD), teacher=dict(optimizer=ADAMW),
        rest=dict(optimizer=SGD), **expected,
    )  # fmt: skip


LAYERS = dict(
    type='OptimWrapper',
    optimizer=ADAMW,
    constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(num_layers=2, decay_rate=0.5, decay_type='stage_wise'),
)


@pytest.mark.parametrize('method', ['adm', 'kd'])
def test_a_constructor_is_given_the_member_that_it_knows(method):
    frozen = method == 'kd'
    paired = pair(plain(optim_wrapper=LAYERS), plain(optim_wrapper=LAYERS), method,
                  'teacher.pth' if frozen else None)  # fmt: skip
    groups = {'student', 'rest'} if frozen else {'student', 'teacher', 'rest'}
    assert set(paired.optim_wrapper) == groups | {'constructor'}
    assert set(paired.param_scheduler) == groups
    for name in groups - {'rest'}:
        own = paired.optim_wrapper[name]
        assert own.constructor == 'LearningRateDecayOptimizerConstructor'
        assert own.paramwise_cfg == LAYERS['paramwise_cfg']


def test_a_frozen_teacher_needs_no_optimiser():
    teacher = other()
    for key in ('optim_wrapper', 'train_cfg', 'param_scheduler'):
        teacher.pop(key)
    paired = pair(plain(), teacher, 'cwd', 'teacher.pth')
    assert paired.optim_wrapper == plain().optim_wrapper
    assert paired.param_scheduler == [poly(100)]
    with pytest.raises(ValueError, match=r'the config of the teacher, .* has no optim_wrapper'):
        pair(plain(), teacher)


def test_schedules_by_epochs_are_refused():
    epochs = dict(type='EpochBasedTrainLoop', max_epochs=3)
    with pytest.raises(ValueError, match=r'trains by epochs; .* give train_cfg\.max_iters'):
        pair(plain(), other(train_cfg=epochs))
    schedule = [dict(type='PolyLR', end=200)]
    with pytest.raises(ValueError, match='schedules PolyLR by epochs: set by_epoch=False'):
        pair(plain(), other(param_scheduler=schedule))


def test_a_schedule_of_fixed_length_is_refused_unless_both_are_as_long():
    schedule = [dict(type='OneCycleLR', eta_max=0.1, total_steps=200, by_epoch=False)]
    text = r'OneCycleLR over total_steps=200, .* from 200 to 100 iterations: .*max_iters=100'
    with pytest.raises(ValueError, match=text):
        pair(plain(), other(param_scheduler=schedule))
    paired = pair(plain(iters=200), other(param_scheduler=schedule))
    assert paired.param_scheduler.teacher == schedule


# ------------------------------------------------------------------------------------- methods


def shipped(method: str) -> Config:
    pair_of = 'pspnet_r101-d8_pspnet_r18-d8_4xb2-80k_cityscapes-512x1024'
    return Config.fromfile(ROOT / f'configs/{method.split("-")[0]}/{method}_{pair_of}.py')


def test_there_is_a_recipe_for_every_method_of_two_networks():
    assert set(recipes()) == {
        'adm', 'adm-offline', 'adm-warm', 'at', 'cwd', 'dist', 'dml', 'fitnet', 'ifvd', 'kd',
        'kdcl', 'mgd', 'skd', 'sokd', 'switokd',
    }  # fmt: skip


@pytest.mark.parametrize('method', recipes())
def test_a_recipe_is_the_shipped_config(method):
    expected = shipped(method)
    frozen = expected.model.members.teacher.get('frozen', False)
    trained = 'checkpoint' in expected.model.members.teacher
    paired = pair(PSP, PSP.replace('r18', 'r101'), method, 'teacher.pth' if trained else None)
    assert paired.model.methods == expected.model.methods
    assert set(paired.model.members) == set(expected.model.members)
    assert paired.model.members.teacher.get('frozen', False) == frozen
    assert paired.default_hooks.schedule == expected.default_hooks.schedule
    others = set(expected.model.members) - {'student', 'teacher'}
    for name in others:
        assert paired.model.members[name] == expected.model.members[name]
    # Where mmseg's configs are those that the project's are made of.
    assert paired.model.data_preprocessor == expected.model.data_preprocessor
    assert paired.train_cfg.max_iters == expected.train_cfg.max_iters
    own, schedule = paired.optim_wrapper, paired.param_scheduler
    if method == 'adm-warm':
        own, schedule = own.student, schedule['student']
    assert schedule == expected.param_scheduler
    assert own.optimizer == expected.optim_wrapper.optimizer
    assert paired.train_dataloader.sampler.type == expected.train_dataloader.sampler.type
    assert paired.train_dataloader.dataset.type == expected.train_dataloader.dataset.type


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
    paired = pair(*networks, 'adm-warm', path)
    assert paired.optim_wrapper.student.optimizer == networks[0].optim_wrapper.optimizer
    assert paired.optim_wrapper.teacher.optimizer.lr == pytest.approx(0.1 * rate)
    assert networks[1].optim_wrapper.optimizer.lr == rate
    assert paired.param_scheduler['teacher'] == paired.param_scheduler['student']
    model = build(paired.model)
    loaded = build(segmentor(8), seed=1).state_dict()
    assert all((value == loaded[key]).all()
               for key, value in model.network('teacher').state_dict().items())  # fmt: skip
    build_optim_wrapper(model, paired.optim_wrapper)
    started = pair(networks[0], Config(dict(networks[1], load_from=path)), 'adm-warm')
    assert started.model.members.teacher.checkpoint == path


@pytest.mark.parametrize('method', ['cwd', 'sokd', 'adm-warm'])
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
    assert mmseg_adm.pair is pair
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
    with pytest.raises(ValueError, match=r"must be one of adm, .* switokd; got 'amd'"):
        pair(PSP, PSP, 'amd')
    with pytest.raises(ValueError, match='such as ffsd, have configs of their own'):
        pair(PSP, PSP, 'ffsd')
    with pytest.raises(ValueError, match="must be 'student' or 'teacher', got 'both'"):
        pair(PSP, PSP, dataset_from='both')


def test_names_of_work_dirs():
    unet = 'mmseg::unet/unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64.py'
    assert paired_name('here/own.py', unet, 'cwd') == (
        'cwd_unet-s5-d16_fcn_4xb4-ce-1.0-dice-3.0-40k_drive-64x64_own'
    )
    assert paired_name(unet.removesuffix('.py'), 'own.py', 'adm').endswith('40k_drive-64x64')


# --------------------------------------------------------------------------------------- flags


def parsed(*flags: str) -> Config:
    return load_config(config_parser('', pairs=True).parse_args(flags))


def test_flags_make_the_same_pair():
    config = parsed('--student', PSP, '--teacher', SEGFORMER, '--dataset-from', 'teacher')
    assert config.to_dict() == pair(PSP, SEGFORMER, dataset_from='teacher').to_dict()
    assert config.filename == (
        'adm_segformer_mit-b0_8xb1-160k_cityscapes-1024x1024_'
        'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
    )


def test_overrides_reach_the_pair():
    config = parsed('--student', PSP, '--teacher', SEGFORMER, '--no-pretrained', '--cfg-options',
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
    monkeypatch.setattr('mmseg_adm.commands.flags.is_distributed', lambda: True)
    parser = config_parser('', pairs=True)
    add_runner_flags(parser)
    flags = ['--launcher', 'pytorch', '--work-dir', 'w', '--student', 's', '--teacher', 't']
    config = pair(plain(env_cfg={}, **given), other())
    prepare_runner(config, parser.parse_args(flags))
    assert config.model_wrapper_cfg.type == 'MMDistributedDataParallel'
    assert config.model_wrapper_cfg.get('find_unused_parameters') == expected
