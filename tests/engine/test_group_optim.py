import copy
import json
import warnings

import pytest
import torch
from factory import DEMO, build, demo_config, distiller_config, raw_batch, segmentor
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, StepLR, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIMIZERS
from mmengine.runner import Runner
from test_optim import gradients, norm
from test_resume import ITERS, differences, final_state, interrupt_and_resume, train
from torch import nn
from torch.testing import assert_close

from mmseg_adm.commands.launch import enable_amp
from mmseg_adm.engine.optim import GroupOptimWrapper, GroupOptimWrapperConstructor
from mmseg_adm.models.taps import find_classifier

CONSTRUCTOR = 'mmseg_adm.GroupOptimWrapperConstructor'
METHODS = dict(dml=dict(type='mmseg_adm.DML'), adm=dict(type='mmseg_adm.ADM'))
RATE = 0.5
SGD = dict(type='SGD', lr=RATE)
GROUP = dict(optimizer=SGD)
PLAIN = dict(student=GROUP, teacher=GROUP, rest=GROUP)


@pytest.fixture
def model():
    """A distiller that draws nothing at random."""
    members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(8, dropout=0.0))
    return build(distiller_config(METHODS, members=members)).train()


def wrap(model, **config):
    return build_optim_wrapper(model, dict(constructor=CONSTRUCTOR, **copy.deepcopy(config)))


def settings(optimizer, *keys):
    """By parameter."""
    return {id(parameter): tuple(group[key] for key in keys)
            for group in optimizer.param_groups for parameter in group['params']}  # fmt: skip


def weights(model):
    return copy.deepcopy(dict(model.state_dict()))


def logged(work_dir):
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------ who trains


LAYOUTS = {
    'members': (PLAIN, {'': 'rest', 'members.student': 'student', 'members.teacher': 'teacher'}),
    'a method': (
        dict(student=GROUP, teacher=GROUP, adm=GROUP),
        {'members.student': 'student', 'members.teacher': 'teacher', 'methods.adm': 'adm'},
    ),
    'the rest alone': (dict(everything=GROUP), {'': 'everything'}),
    'modules': (
        dict(
            heads=dict(
                GROUP, modules=['members.student.decode_head', 'members.teacher.decode_head']
            ),
            others=GROUP,
        ),
        {
            '': 'others',
            'members.student.decode_head': 'heads',
            'members.teacher.decode_head': 'heads',
        },
    ),
    'modules of another name': (
        dict(student=dict(GROUP, modules=['members.teacher']), rest=GROUP),
        {'': 'rest', 'members.teacher': 'student'},
    ),
    'a part of a member': (
        dict(PLAIN, classifier=dict(GROUP, modules=['members.student.decode_head.conv_seg'])),
        {
            '': 'rest',
            'members.student': 'student',
            'members.teacher': 'teacher',
            'members.student.decode_head.conv_seg': 'classifier',
        },
    ),
    'a part of a method': (
        dict(rest=GROUP, adm=GROUP, part=dict(GROUP, modules=['methods.adm.part'])),
        {'': 'rest', 'methods.adm': 'adm', 'methods.adm.part': 'part'},
    ),
}


@pytest.mark.parametrize('layout', LAYOUTS)
def test_each_parameter_has_one_optimizer(layout, model):
    model.methods['adm'].part = nn.Conv2d(2, 3, 1)
    groups, paths = LAYOUTS[layout]
    wrapper = wrap(model, **groups)
    assert isinstance(wrapper, GroupOptimWrapper)
    assert set(wrapper.keys()) == set(groups)
    held = [(id(parameter), name) for name, each in wrapper.items()
            for group in each.optimizer.param_groups for parameter in group['params']]  # fmt: skip
    assert len(held) == len(dict(held))
    expected = {}
    for key, parameter in model.named_parameters():
        inside = [path for path in paths if not path or key.startswith(f'{path}.')]
        expected[id(parameter)] = paths[max(inside, key=len)]
    assert dict(held) == expected


@pytest.mark.parametrize('parted', [False, True])
def test_settings_within_a_member_are_those_of_a_plain_segmentor(parted, model):
    optimizer = dict(type='SGD', lr=0.1, weight_decay=0.01)
    paramwise = dict(custom_keys={'head': dict(lr_mult=10.0)}, norm_decay_mult=0.0)
    student = model.members['student']
    plain = DefaultOptimWrapperConstructor(dict(optimizer=optimizer), paramwise)(student)
    groups = dict(
        PLAIN, student=dict(optimizer=optimizer, paramwise_cfg=paramwise),
    )  # fmt: skip
    if parted:
        groups['part'] = dict(GROUP, modules=['members.student.backbone.layer1'])
    keys = ('lr', 'weight_decay')
    found = settings(wrap(model, **groups)['student'].optimizer, *keys)
    expected = settings(plain.optimizer, *keys)
    if parted:
        for parameter in student.backbone.layer1.parameters():
            del expected[id(parameter)]
    assert found == expected
    # Norms in the head fall under the head's key.
    norms = student.backbone.layer2[0].bn1
    assert found[id(student.decode_head.conv_seg.weight)] == pytest.approx((1.0, 0.01))
    assert found[id(norms.weight)] == pytest.approx((0.1, 0.0))
    assert found[id(student.backbone.layer2[0].conv1.weight)] == pytest.approx((0.1, 0.01))


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class HeadAlone(DefaultOptimWrapperConstructor):
    """Reads a plain segmentor, as mmseg's layer-wise constructors do, and changes its settings."""

    def __call__(self, model):
        del self.paramwise_cfg['rate']
        self.optimizer_cfg['params'] = model.decode_head.parameters()
        return OptimWrapper(OPTIMIZERS.build(self.optimizer_cfg), clip_grad=dict(max_norm=1))


@pytest.mark.core
def test_a_group_has_a_constructor_of_its_own(model):
    model.members['student'].backbone.requires_grad_(False)
    group = dict(GROUP, constructor='HeadAlone', paramwise_cfg=dict(rate=1))
    constructor = GroupOptimWrapperConstructor(dict(PLAIN, student=group))
    for _ in range(2):
        wrapper = constructor(model)
        assert list(settings(wrapper['student'].optimizer)) == [
            id(parameter) for parameter in model.members['student'].decode_head.parameters()
        ]
        assert wrapper['student'].clip_grad_kwargs == dict(max_norm=1)
        assert not wrapper['teacher'].clip_grad_kwargs


@pytest.mark.core
@pytest.mark.parametrize('dtype', [None, 'float16'])
def test_the_rest_may_be_nothing(dtype, tmp_path):
    """As between members of one width: the method then has no parameters."""
    members = dict(student=segmentor(4, dropout=0.0), teacher=segmentor(4, dropout=0.0))
    model = build(distiller_config(METHODS, members=members)).train()
    assert not list(model.methods.parameters())
    wrapper = wrap(model, **PLAIN, dtype=dtype)
    schedule = StepLR(wrapper['rest'], step_size=1, gamma=0.5, by_epoch=False)
    before = weights(model)
    model.train_step(raw_batch(), wrapper)
    with warnings.catch_warnings():
        # Of a schedule that goes on before its optimizer did.
        warnings.simplefilter('error')
        schedule.step()
    for name in ('student', 'teacher'):
        key = f'members.{name}.decode_head.conv_seg.weight'
        assert not torch.equal(weights(model)[key], before[key])
    assert wrapper.get_lr()['rest.lr'] == [RATE / 2]
    torch.save(wrapper.state_dict(), tmp_path / 'state.pth')
    wrapper.load_state_dict(torch.load(tmp_path / 'state.pth'))


# ------------------------------------------------------------------------------------ steps


@pytest.mark.core
@pytest.mark.parametrize('counts', [1, 2])
def test_alike_groups_train_as_one_optimizer(counts, model):
    options = dict(lr=0.01, momentum=0.9, weight_decay=0.01)
    twin = copy.deepcopy(model)
    one = OptimWrapper(torch.optim.SGD(twin.parameters(), **options), accumulative_counts=counts)
    group = dict(optimizer=dict(options, type='SGD'))
    several = wrap(model, student=group, teacher=group, rest=group, accumulative_counts=counts)
    start = weights(model)
    for wrapper, each in ((several, model), (one, twin)):
        # The last one is a step of its own.
        wrapper.initialize_count_status(each, 0, 5)
    for seed in range(5):
        logs = model.train_step(raw_batch(seed=seed), several)
        assert_close(logs, twin.train_step(raw_batch(seed=seed), one), rtol=0, atol=0)
    assert_close(weights(model), weights(twin), rtol=0, atol=0)
    assert not torch.equal(start['members.student.decode_head.conv_seg.weight'],
                           model.members['student'].decode_head.conv_seg.weight)  # fmt: skip
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_group_is_clipped_by_its_own_norm(model):
    batch = raw_batch()
    found = gradients(model, batch, OptimWrapper(torch.optim.SGD(model.parameters(), lr=RATE)))
    norms = {name: norm(value for key, value in found.items() if key.startswith(f'members.{name}.'))
             for name in ('student', 'teacher')}  # fmt: skip
    before, twin = weights(model), copy.deepcopy(model)
    wrapper = wrap(
        model,
        student=dict(GROUP, clip_grad=dict(max_norm=norms['student'] / 2)),
        teacher=dict(GROUP, clip_grad=dict(max_norm=2 * norms['teacher'])),
        rest=GROUP,
    )
    model.train_step(batch, wrapper)
    scalars = MessageHub.get_current_instance().log_scalars
    names = {name for name in scalars if 'grad' in name}
    assert names == {'train/student.grad_norm', 'train/teacher.grad_norm'}
    for name, value in norms.items():
        assert scalars[f'train/{name}.grad_norm'].current() == pytest.approx(value, rel=1e-4)
    for key, parameter in model.named_parameters():
        factor = 0.5 if key.startswith('members.student.') else 1
        step = factor * RATE * found[key]
        assert_close(parameter, before[key] - step, rtol=1e-4, atol=1e-6)
    # One optimizer would clip all by the norm of all.
    joint = OptimWrapper(
        torch.optim.SGD(twin.parameters(), lr=RATE), clip_grad=dict(max_norm=norms['student'] / 2)
    )
    twin.train_step(batch, joint)
    key = 'members.teacher.decode_head.conv_seg.weight'
    assert not torch.allclose(weights(twin)[key], weights(model)[key])


def test_bfloat16(model):
    seen = []
    for name in ('student', 'teacher'):
        find_classifier(model.network(name)).register_forward_hook(
            lambda module, inputs, output: seen.append(output.dtype)
        )
    before = weights(model)
    logs = model.train_step(raw_batch(), wrap(model, **PLAIN, dtype='bfloat16'))
    assert seen == [torch.bfloat16] * 2
    for key, value in logs.items():
        assert value.dtype == torch.float32, key
        assert value.isfinite(), key
    for part in ('members.student.', 'members.teacher.', 'methods.adm.'):
        assert any(not torch.equal(value, before[key]) for key, value in model.named_parameters()
                   if key.startswith(part))  # fmt: skip
    assert not torch.is_autocast_enabled('cpu')


# ------------------------------------------------------------------------------------ float16


@pytest.fixture
def layers():
    return nn.ModuleDict({name: nn.Linear(3, 1, bias=False) for name in ('first', 'second')})


def scaled(layers, **options):
    """float16 with a scale that is exact, and a clipped first group."""
    options = dict(loss_scale=dict(init_scale=1024.0, growth_interval=2)) | options
    clip = {'first': dict(max_norm=1.0)}
    wrappers = {name: OptimWrapper(torch.optim.SGD(layer.parameters(), lr=1.0),
                                   clip_grad=clip.get(name))
                for name, layer in layers.items()}  # fmt: skip
    return GroupOptimWrapper(wrappers, dtype='float16', **options)


def test_one_scaler_scales_and_unscales_before_clipping(layers):
    wrapper = scaled(layers)
    slopes = dict(first=torch.tensor([[3.0, 0.0, 4.0]]), second=torch.tensor([[1.0, 2.0, 3.0]]))
    before = weights(layers)
    seen = {}
    for name, layer in layers.items():
        layer.weight.register_hook(lambda gradient, name=name: seen.update({name: gradient}))

    def loss():
        return sum((layers[name].weight * slope).sum() for name, slope in slopes.items())

    wrapper.update_params(loss())
    for name, slope in slopes.items():
        assert torch.equal(seen[name], 1024 * slope)
    scalars = MessageHub.get_current_instance().log_scalars
    assert scalars['train/first.grad_norm'].current() == 5.0
    assert_close(layers['first'].weight, before['first.weight'] - slopes['first'] / 5)
    assert_close(layers['second'].weight, before['second.weight'] - slopes['second'])
    # The scale counts steps, not optimizers.
    assert wrapper.loss_scaler.get_scale() == 1024
    wrapper.update_params(loss())
    assert wrapper.loss_scaler.get_scale() == 2048


def test_a_group_without_gradients_is_passed_over(layers):
    wrapper = scaled(layers)
    before = weights(layers)
    wrapper.update_params(layers['first'].weight.sum())
    assert torch.equal(layers['second'].weight, before['second.weight'])
    assert not torch.equal(layers['first'].weight, before['first.weight'])


def test_gradients_that_are_not_finite_are_not_stepped(layers):
    wrapper = scaled(layers)
    before = weights(layers)
    loss = sum(layer.weight.sum() for layer in layers.values())
    wrapper.update_params(loss + float('inf') * layers['second'].weight.sum())
    assert torch.equal(layers['second'].weight, before['second.weight'])
    assert not torch.equal(layers['first'].weight, before['first.weight'])
    assert layers['first'].weight.isfinite().all()
    assert wrapper.loss_scaler.get_scale() == 512
    assert all(parameter.grad is None for parameter in layers.parameters())


def test_gradients_are_unscaled_once_an_accumulation(layers):
    wrapper = scaled(layers, accumulative_counts=2)
    before = weights(layers)
    for slope in (1.0, 3.0):
        wrapper.update_params(slope * layers['second'].weight.sum() + layers['first'].weight.sum())
    assert_close(layers['second'].weight, before['second.weight'] - 2.0)


def test_the_scale_is_saved(layers):
    first, second = scaled(layers), scaled(layers, loss_scale='dynamic')
    first.update_params(sum(float('inf') * layer.weight.sum() for layer in layers.values()))
    state = first.state_dict()
    assert set(state) == {'first', 'second', 'loss_scaler'}
    second.load_state_dict(state)
    assert second.loss_scaler.get_scale() == 512
    # From and to a run without one.
    plain = scaled(layers)
    plain.loss_scaler = torch.amp.GradScaler('cpu', enabled=False)
    plain.load_state_dict(state)
    assert set(plain.state_dict()) == {'first', 'second'}
    second.load_state_dict(plain.state_dict())
    assert second.loss_scaler.get_scale() == 512


def test_float16_trains_a_distiller(model):
    before = weights(model)
    wrapper = wrap(model, **PLAIN, dtype='float16', loss_scale=dict(init_scale=256.0))
    logs = model.train_step(raw_batch(), wrapper)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in logs.values())
    for part in ('members.student.', 'members.teacher.', 'methods.adm.'):
        assert any(not torch.equal(value, before[key]) for key, value in model.named_parameters()
                   if key.startswith(part))  # fmt: skip


# ------------------------------------------------------------------------------------ in a run


def run_config(city, work_dir, iters=ITERS, interval=2, schedulers=None, groups=PLAIN, **options):
    config = demo_config(
        city, work_dir, iters, train_cfg__val_begin=1000,
        default_hooks__checkpoint__max_keep_ckpts=-1, **options,
    )  # fmt: skip
    config.default_hooks.checkpoint.interval = interval
    config.optim_wrapper = dict(constructor=CONSTRUCTOR, **copy.deepcopy(groups))
    if schedulers is not None:
        config.param_scheduler = schedulers
    return config


def halving():
    return dict(type='StepLR', step_size=1, gamma=0.5, by_epoch=False)


@pytest.mark.core
@pytest.mark.parametrize('by_group', [True, False])
def test_schedules_and_the_log(by_group, city, tmp_path):
    optimizer = dict(type='SGD', lr=0.01)
    groups = dict(
        student=dict(optimizer=optimizer, clip_grad=dict(max_norm=1.0)),
        teacher=dict(optimizer=dict(type='AdamW', lr=0.001)),
        rest=dict(optimizer=optimizer),
    )
    constant = dict(type='ConstantLR', factor=1.0, by_epoch=False)
    schedulers = [halving()]
    if by_group:
        schedulers = dict(student=[halving()], teacher=[constant], rest=constant)
    config = run_config(city, tmp_path, 3, 3, schedulers, groups)
    Runner.from_cfg(config).train()
    lines = logged(tmp_path)
    assert len(lines) == 3
    falls, stays = [1, 0.5, 0.25], [1, 1, 1]
    for name, lr in (('student', 0.01), ('teacher', 0.001), ('adm', 0.01)):
        factors = falls if name == 'student' or not by_group else stays
        found = [line[f'{name}.lr'] for line in lines]
        assert found == pytest.approx([lr * factor for factor in factors])
    for line in lines:
        assert 'lr' not in line
        assert line['student.grad_norm'] > 0
        assert [key for key in line if 'grad' in key] == ['student.grad_norm']


@pytest.mark.core
@pytest.mark.slow
def test_a_resumed_run_ends_as_the_uninterrupted_one(city, tmp_path):
    groups = dict(
        student=dict(optimizer=dict(type='Adam', lr=0.001), clip_grad=dict(max_norm=1.0)),
        teacher=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        rest=dict(optimizer=dict(type='SGD', lr=0.01)),
        accumulative_counts=2,
    )

    def configure(folder='resumed', **options):
        schedulers = {name: [halving()] for name in ('student', 'teacher', 'rest')}
        return run_config(city, tmp_path / folder, groups=groups, schedulers=schedulers,
                          train_cfg__val_interval=2, **options)  # fmt: skip

    train(configure('through'))
    assert interrupt_and_resume(configure, stop_in=3) == [2, 3, 4]
    expected = final_state(tmp_path / 'through')
    assert set(expected['optimizer']) == {'student', 'teacher', 'rest'}
    assert all(expected['optimizer'][name]['state'] for name in ('student', 'teacher'))
    assert differences(expected, final_state(tmp_path / 'resumed')) == []


def test_other_groups_are_not_resumed(city, tmp_path):
    train(run_config(city, tmp_path, 1, 1))
    for groups in (dict(members=dict(GROUP, modules=['members']), rest=GROUP), dict(all=GROUP)):
        config = run_config(city, tmp_path, 2, 2, groups=groups, resume=True)
        with pytest.raises(ValueError, match=r'optim_wrapper\.student\..*: SGD then, not set now'):
            Runner.from_cfg(config).train()
        config.default_hooks.pop('resume_guard')  # the wrapper refuses as well
        text = f'holds optimizers for student, teacher, rest; now they are {", ".join(groups)}'
        with pytest.raises(ValueError, match=text):
            Runner.from_cfg(config).train()


def test_one_optimizer_for_all_is_not_resumed_as_several(city, tmp_path):
    config = run_config(city, tmp_path, 1, 1)
    config.optim_wrapper = dict(optimizer=SGD)
    train(config)
    config = run_config(city, tmp_path, 2, 2, resume=True)
    config.default_hooks.pop('resume_guard')  # the wrapper refuses as well
    with pytest.raises(ValueError, match='now they are student, teacher, rest'):
        Runner.from_cfg(config).train()


@pytest.mark.parametrize(('cuda', 'dtype'), [(False, 'bfloat16'), (True, 'float16')])
def test_amp_is_a_dtype(cuda, dtype, model, monkeypatch):
    config = Config.fromfile(DEMO)
    config.optim_wrapper = dict(constructor=CONSTRUCTOR, **copy.deepcopy(PLAIN))
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'is_available', lambda: cuda)
        enable_amp(config)
    assert config.optim_wrapper.dtype == dtype
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    assert wrapper.dtype == getattr(torch, dtype)
    assert wrapper.loss_scaler.is_enabled() == cuda


@pytest.mark.parametrize(
    ('given', 'cuda', 'expected'),
    [
        (dict(optimizer=SGD), False, 'mmseg_adm.CPUAmpOptimWrapper'),
        (dict(optimizer=SGD), True, 'AmpOptimWrapper'),
        (dict(type='AmpOptimWrapper', dtype='bfloat16'), False, 'AmpOptimWrapper'),
        (dict(type='mmseg_adm.CPUAmpOptimWrapper'), False, 'mmseg_adm.CPUAmpOptimWrapper'),
    ],
)
def test_amp_of_a_plain_wrapper(given, cuda, expected, monkeypatch):
    config = Config(dict(optim_wrapper=given))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: cuda)
    enable_amp(config)
    assert config.optim_wrapper.type == expected
    # What is mixed already stays as it is.
    assert config.optim_wrapper.get('dtype') == given.get('dtype')


def test_amp_of_a_wrapper_of_the_users():
    config = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
    with pytest.raises(ValueError, match=r'--amp needs .* OptimWrapper, got ApexOptim'):
        enable_amp(config)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ('config', 'text'),
    [
        (dict(), 'has no groups: name at least one'),
        (dict(accumulative_counts=2), 'has no groups'),
        (dict(PLAIN, clip_grad=None), r"'clip_grad' of the optim_wrapper must be a group .* None"),
        (
            dict(PLAIN, optimizer=SGD),
            r"'optimizer' of .* a group with an optimizer, .* dtype, loss",
        ),
        (dict(PLAIN, student=dict(GROUP, type='AmpOptimWrapper')), "group 'student' .* has a type"),
        (
            dict(PLAIN, student=dict(GROUP, accumulative_counts=2)),
            'or accumulative_counts of its own, but all groups step together',
        ),
        (dict(PLAIN, heads=dict(GROUP, modules=['members.peer'])), "no module 'members.peer'"),
        (dict(PLAIN, others=GROUP), 'only one group can take the rest, but rest, others are neith'),
        (dict(PLAIN, dml=GROUP), "group 'dml' of the optim_wrapper has no parameters"),
        (
            dict(PLAIN, again=dict(GROUP, modules=['members.student'])),
            "groups 'student' and 'again' .* share parameters",
        ),
        (dict(student=GROUP), r'no group .* trains members\.teacher, methods\.adm: name them, or'),
        (dict(student=GROUP, teacher=GROUP), r'trains methods\.adm: .* rest=dict\(optimizer='),
        (dict(PLAIN, accumulative_counts=0), 'accumulative_counts must be an integer >= 1, got 0'),
        (dict(PLAIN, accumulative_counts='2'), "must be an integer >= 1, got '2'"),
        (
            dict(PLAIN, type='AmpOptimWrapper'),
            "AmpOptimWrapper' has no place beside groups: .* dtype",
        ),
        (dict(PLAIN, dtype='half'), "dtype must be 'float16', 'bfloat16' or None, got 'half'"),
        (dict(PLAIN, loss_scale=512), "loss_scale must be 'dynamic' or a dict of .* got 512"),
    ],
)
def test_impossible_groups_are_refused(config, text, model):
    with pytest.raises(ValueError, match=text):
        GroupOptimWrapperConstructor(copy.deepcopy(config))(model)


def test_settings_for_all_groups_at_once_are_refused(model):
    with pytest.raises(ValueError, match='paramwise_cfg belongs into each group'):
        wrap(model, **PLAIN, paramwise_cfg=dict(norm_decay_mult=0.0))


def test_the_config_is_left_as_it_was(model):
    config = dict(PLAIN, student=dict(GROUP, clip_grad=dict(type='norm', max_norm=1.0)))
    before = copy.deepcopy(config)
    GroupOptimWrapperConstructor(config)(model)
    assert config == before


def test_frozen_parameters_need_no_group(model):
    model.members['teacher'].requires_grad_(False)
    model.methods.requires_grad_(False)
    assert set(wrap(model, student=GROUP).keys()) == {'student'}
