import copy

import pytest
import torch
from factory import ROOT, build, demo_config, differences
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.checkpoint import RECORD, read_checkpoint, safe_loading
from mmseg_adm.engine import QuietRunner
from mmseg_adm.engine.settings import RESTORED, settings_of
from mmseg_adm.engine.settings import differences as differences_of_settings
from mmseg_adm.export import plain_config

pytestmark = pytest.mark.core

ITERS = 5
OFFLINE = ROOT / (
    'configs/adm/adm-offline_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
)
RAMP = dict(start=1, ramp='linear', ramp_iters=4)
CASES = {
    'no workers': dict(),
    'two workers': dict(workers=2),
    'accumulation': dict(
        interval=2, optim_wrapper__accumulative_counts=2, train_cfg__val_interval=2
    ),
    'frozen teacher': dict(config=OFFLINE),
    'ramp, averaged teacher and weights': dict(
        default_hooks__schedule__schedules=dict(adm=RAMP),
        model__members__mean_teacher=dict(type='mmseg_adm.EMATeacher', momentum=0.2),
        model__methods__adm__target='mean_teacher',
        custom_hooks=[dict(type='EMAHook', momentum=0.2)],
    ),
}

# A second look at what others show.
LONG = ('no workers', 'two workers', 'accumulation', 'frozen teacher')


class Interruption(Exception):
    pass


class Iterations(Hook):
    """Notes the iterations; stops where a machine might, between two checkpoints."""

    def __init__(self, stop_in=None):
        self.stop_in = stop_in
        self.seen = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.stop_in:
            raise Interruption
        self.seen.append(runner.iter)


@pytest.fixture(autouse=True, scope='module')
def schemes():
    with safe_loading():
        yield


@pytest.fixture(scope='module')
def teacher(tmp_path_factory, city):
    """Two teachers of the offline config, of different weights."""
    folder = tmp_path_factory.mktemp('teachers')
    network = plain_config(demo_config(city, folder, config=OFFLINE), 'teacher').model
    paths = []
    for seed in (1, 2):
        paths.append(str(folder / f'teacher_{seed}.pth'))
        torch.save({'state_dict': build(network, seed).state_dict()}, paths[-1])
    return paths


@pytest.fixture(scope='module')
def make_config(city, teacher):
    def make(work_dir, iters=ITERS, interval=3, **options):
        if options.get('config') == OFFLINE:
            options.setdefault('model__members__teacher__checkpoint', teacher[0])
        options.setdefault('train_cfg__val_begin', 1000)
        options.setdefault('default_hooks__checkpoint__max_keep_ckpts', -1)
        config = demo_config(city, work_dir, iters, **options)
        config.default_hooks.checkpoint.interval = interval
        return config

    return make


@pytest.fixture(scope='module')
def uninterrupted(make_config, tmp_path_factory):
    """Final state of a case that ran through, trained once."""
    states = {}

    def run(case):
        if case not in states:
            work_dir = tmp_path_factory.mktemp('uninterrupted')
            train(make_config(work_dir, **CASES[case]))
            states[case] = final_state(work_dir)
        return states[case]

    return run


@pytest.fixture(scope='module')
def first_checkpoint(make_config, tmp_path_factory):
    """A run with a frozen teacher after its first iteration."""
    work_dir = tmp_path_factory.mktemp('first')
    train(make_config(work_dir, iters=1, interval=1, config=OFFLINE))
    return work_dir / 'iter_1.pth'


def train(config, stop_in=None):
    """Train, and return which iterations ran."""
    runner = Runner.from_cfg(config)
    iterations = Iterations(stop_in)
    runner.register_hook(iterations)
    try:
        runner.train()
    finally:
        # Collected as garbage, each worker would be waited for in vain, for five seconds.
        workers = runner.train_loop.dataloader_iterator._iterator
        getattr(workers, '_shutdown_workers', list)()
    return iterations.seen


def interrupt_and_resume(configure, stop_in):
    """Train into iteration ``stop_in``, then go on in another Runner in the same folder."""
    with pytest.raises(Interruption):
        train(configure(), stop_in)
    return train(configure(resume=True))


def final_state(work_dir):
    checkpoint = read_checkpoint(work_dir / f'iter_{ITERS}.pth')
    kept = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    return {key: checkpoint[key] for key in kept if key in checkpoint}


@pytest.mark.parametrize('case', [
    pytest.param(case, marks=[pytest.mark.slow] if case in LONG else []) for case in CASES
])  # fmt: skip
def test_a_resumed_run_ends_as_the_uninterrupted_one(case, make_config, uninterrupted, tmp_path):
    interval = CASES[case].get('interval', 3)
    resumed = interrupt_and_resume(
        lambda **options: make_config(tmp_path, **CASES[case], **options), stop_in=interval + 1
    )
    assert resumed == list(range(interval, ITERS))
    assert differences(uninterrupted(case), final_state(tmp_path)) == []


def test_what_is_compared(uninterrupted, make_config, tmp_path):
    state = uninterrupted('no workers')
    heads = [member.decode_head for member in make_config(tmp_path).model.members.values()]
    assert all(head.dropout_ratio > 0 for head in heads)
    for part in ('members.student', 'members.teacher', 'methods.adm.projection'):
        assert any(key.startswith(part) for key in state['state_dict'])
    assert any(key.endswith('running_var') for key in state['state_dict'])
    moments = [each.values() for each in state['optimizer']['state'].values()]
    assert all(any(torch.is_tensor(value) and value.ndim for value in each) for each in moments)
    averaged = uninterrupted('ramp, averaged teacher and weights')
    assert 'ema_state_dict' in averaged
    assert any(key.startswith('averages.mean_teacher') for key in averaged['state_dict'])


@pytest.mark.slow
def test_workers_make_no_difference(uninterrupted):
    assert differences(uninterrupted('no workers'), uninterrupted('two workers')) == []


def test_a_rank_that_is_added_to_the_seed_leaves_one_stream(make_config, tmp_path, monkeypatch):
    config = make_config(tmp_path, randomness__diff_rank_seed=True)
    QuietRunner.from_cfg(config)
    for rank in (0, 1):
        monkeypatch.setattr('mmseg_adm.engine.runner.get_rank', lambda rank=rank: rank)
        loader = QuietRunner.build_dataloader(config.train_dataloader, 7 + rank, True)
        assert loader.sampler.seed == 7
    monkeypatch.undo()
    # MMEngine's own runner draws a seed; what is set is not to be set again.
    with pytest.raises(ValueError, match=r'remove randomness\.diff_rank_seed'):
        train(config)
    runner = QuietRunner.from_cfg(config)
    runner.train()
    assert runner.iter == ITERS


@pytest.mark.slow
def test_the_stock_data_stream_does_not_resume_exactly(make_config, tmp_path):
    def configure(folder, **options):
        config = make_config(tmp_path / folder, **options)
        loader = config.train_dataloader
        loader.dataset = loader.dataset.dataset
        loader.sampler = dict(type='InfiniteSampler', shuffle=True)
        config.default_hooks.pop('data_stream')
        return config

    train(configure('through'))
    interrupt_and_resume(lambda **options: configure('resumed', **options), stop_in=4)
    found = differences(final_state(tmp_path / 'through'), final_state(tmp_path / 'resumed'))
    assert any(path.startswith('/state_dict') for path in found)


BATCH = dict(train_dataloader__batch_size=3)
SGD = dict(_delete_=True, type='SGD', lr=0.1, momentum=0.9)
CROP = 'train_dataloader__dataset__dataset__pipeline'
# Each makes another training, and most of them another that looks the same.
CHANGES = {
    'batch size': (BATCH, 'train_dataloader.batch_size: 2 then, 3 now'),
    'a method more': (
        dict(model__methods__extra=dict(type='mmseg_adm.CWD')),
        'model.methods.extra.type: not set then, mmseg_adm.CWD now',
    ),
    'no method': (dict(model__methods__adm=None), 'model.methods.adm.type: mmseg_adm.ADM then,'),
    'reading': (
        dict(model__methods__adm__consensus='imitation'),
        'model.methods.adm.consensus: ',
    ),
    'weight': (
        dict(model__methods__adm__consensus_weight=2.0),
        'model.methods.adm.consensus_weight: ',
    ),
    'tau': (dict(model__methods__kd__tau=2.0), 'model.methods.kd.tau: '),
    'amp': (
        dict(optim_wrapper__type='mmseg_adm.CPUAmpOptimWrapper'),
        'optim_wrapper.type: OptimWrapper then, mmseg_adm.CPUAmpOptimWrapper now',
    ),
    'accumulation': (
        dict(optim_wrapper__accumulative_counts=2),
        'optim_wrapper.accumulative_counts: not set then, 2 now',
    ),
    'clipping': (
        dict(optim_wrapper__clip_grad=dict(_delete_=True, max_norm=1.0)),
        'optim_wrapper.clip_grad.max_norm: not set then, 1.0 now',
    ),
    'crop': (
        dict(model__data_preprocessor__size=(64, 64)),
        'model.data_preprocessor.size: [96, 128] then, [64, 64] now',
    ),
    'augmentation': (
        {f'{CROP}__2__ratio_range': (0.9, 1.1)},
        'train_dataloader.dataset.dataset.pipeline.2.ratio_range: ',
    ),
    'data': (
        dict(
            train_dataloader__dataset__dataset__data_prefix=dict(
                img_path='leftImg8bit/val', seg_map_path='gtFine/val'
            )
        ),
        'train_dataloader.dataset.dataset.data_prefix.img_path: leftImg8bit/train then, ',
    ),
    'shuffling': (
        dict(train_dataloader__sampler__shuffle=False),
        'train_dataloader.sampler.shuffle: ',
    ),
    'schedule of a method': (
        dict(default_hooks__schedule__schedules=dict(adm=dict(start=1))),
        'default_hooks.schedule.schedules.adm.start: not set then, 1 now',
    ),
    'deployed student': (
        dict(model__student='teacher'), 'model.student: not set then, teacher now'
    ),
    'loss of a head': (
        dict(model__members__student__decode_head__loss_decode__loss_weight=2.0),
        'model.members.student.decode_head.loss_decode.loss_weight: 1.0 then, 2.0 now',
    ),
    'EMA': (
        dict(custom_hooks=[dict(type='EMAHook', momentum=0.2)]),
        'custom_hooks.0.momentum: not set then, 0.2 now',
    ),
    'learning rate': (
        dict(optim_wrapper__optimizer__lr=0.1), 'optim_wrapper.optimizer.lr: 0.002 then, 0.1 now'
    ),
    'optimizer': (
        dict(optim_wrapper__optimizer=SGD), 'optim_wrapper.optimizer.type: AdamW then, SGD now'
    ),
    'learning rate of a part': (
        dict(optim_wrapper__paramwise_cfg=dict(custom_keys={'members.student': dict(lr_mult=0.1)})),
        'optim_wrapper.paramwise_cfg.custom_keys.members.student.lr_mult: not set then, 0.1 now',
    ),
    'schedule of the learning rate': (
        dict(param_scheduler__0__power=2.0), 'param_scheduler.0.power: 0.9 then, 2.0 now'
    ),
    'normalization over processes': (dict(sync_bn='torch'), 'sync_bn: not set then, torch now'),
    'seed': (dict(randomness__seed=7), 'randomness.seed: 0 then, 7 now'),
}  # fmt: skip
# Those that a resumed run has from its checkpoint, whatever the config says.
KEPT = {
    'learning rate', 'optimizer', 'learning rate of a part', 'schedule of the learning rate', 'seed'
}  # fmt: skip


@pytest.fixture
def resumed_from_first(make_config, first_checkpoint, tmp_path):
    def make(**change):
        return make_config(
            tmp_path, **{'iters': 4, 'interval': 4} | change, config=OFFLINE,
            load_from=str(first_checkpoint), resume=True,
        )  # fmt: skip

    return make


@pytest.mark.parametrize('name', CHANGES)
def test_what_is_another_training(name, resumed_from_first, first_checkpoint):
    change, line = CHANGES[name]
    then = read_checkpoint(first_checkpoint)['meta'][RECORD]['settings']
    found = differences_of_settings(then, settings_of(resumed_from_first(**copy.deepcopy(change))))
    assert any(str(each).startswith(line) for each in found)
    assert {RESTORED.fullmatch(each.path) is not None for each in found} == {name in KEPT}


@pytest.mark.parametrize('name', ['batch size', 'weight', 'learning rate', 'EMA'])
def test_another_training_is_not_resumed(name, resumed_from_first):
    change, line = CHANGES[name]
    config = resumed_from_first(**copy.deepcopy(change))
    with pytest.raises(ValueError) as caught:
        train(config)
    text = str(caught.value)
    assert text.startswith('the checkpoint belongs to a run with other settings, so resuming it')
    assert f'\n  {line}' in text
    assert ('No resumed run can change these' in text) == (name in KEPT)
    assert ('To resume all the same: --allow-changes' in text) == (name not in KEPT)


def test_what_a_checkpoint_restores_cannot_be_allowed(resumed_from_first):
    config = resumed_from_first(optim_wrapper__optimizer__lr=0.1, **BATCH)
    config.default_hooks.resume_guard.allow_changes = True
    with pytest.raises(ValueError) as caught:
        train(config)
    text = str(caught.value)
    assert 'these, which come with its checkpoint:\n  optim_wrapper.optimizer.lr: 0.002' in text
    assert 'batch_size' not in text
    assert 'without --resume, with load_from=CHECKPOINT' in text


def test_what_is_no_other_training_is_resumed(resumed_from_first, city, tmp_path):
    moved = tmp_path / 'moved'
    moved.symlink_to(city, target_is_directory=True)
    options = dict(
        iters=2, interval=2, workers=1,
        train_cfg__val_interval=7,
        train_dataloader__dataset__dataset__data_root=str(moved),
        model__members__student__backbone__init_cfg=None,
        default_hooks__logger__interval=2,
        default_hooks__finite_loss__action='skip',
        env_cfg__cudnn_benchmark=False,
    )  # fmt: skip
    config = resumed_from_first(**options)
    # One iteration more than the first run had, and a schedule that ends by as many later.
    config.param_scheduler[0].end = make_end = first_end(config) + 1
    assert train(config) == [1]
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    assert 'Schedules are the ones of the checkpoint, and end where they did' in text
    assert f'param_scheduler.0.end: {make_end - 1} then, {make_end} now' in text


def first_end(config):
    return Config.fromfile(OFFLINE).param_scheduler[0].end


def test_another_teacher_is_not_resumed(make_config, first_checkpoint, teacher, tmp_path):
    config = make_config(
        tmp_path, iters=2, config=OFFLINE, load_from=str(first_checkpoint), resume=True,
        model__members__teacher__checkpoint=teacher[1],
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r'would not continue it:\n  weights of teacher \(sha256\)'
    ):
        train(config)


def test_changes_are_allowed_as_the_message_says(resumed_from_first, tmp_path):
    config = resumed_from_first(iters=2, **BATCH)
    with pytest.raises(ValueError, match=r'default_hooks\.resume_guard\.allow_changes=True$'):
        train(config)
    config.merge_from_dict({'default_hooks.resume_guard.allow_changes': True})
    assert train(config) == [1]
    logs = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    warning = 'WARNING - Resumed a run with other settings:\n  train_dataloader.batch_size: 2 then'
    assert warning in logs


def test_another_number_of_processes_is_resumed_and_said(
    make_config, first_checkpoint, resumed_from_first, tmp_path
):
    checkpoint = read_checkpoint(first_checkpoint)
    checkpoint['meta']['mmseg_adm']['processes'] = 2
    torch.save(checkpoint, tmp_path / 'two_processes.pth')
    config = resumed_from_first(iters=2)
    config.load_from = str(tmp_path / 'two_processes.pth')
    assert train(config) == [1]
    (log,) = tmp_path.glob('*/*.log')
    assert 'WARNING - Resumed with 1 processes in place of 2: a step takes in' in log.read_text()


def test_loading_without_resuming_takes_other_settings(make_config, first_checkpoint, tmp_path):
    config = make_config(
        tmp_path, iters=1, config=OFFLINE, load_from=str(first_checkpoint),
        train_dataloader__batch_size=3,
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    runner.load_or_resume()
    loaded = read_checkpoint(first_checkpoint)['state_dict']
    assert differences(dict(runner.model.state_dict()), dict(loaded)) == []


def test_checkpoints_amid_an_accumulation_are_refused(make_config, tmp_path):
    config = make_config(tmp_path, interval=3, optim_wrapper__accumulative_counts=2)
    with pytest.raises(ValueError, match=r'every 3 iterations .* over 2, .* a multiple of 2'):
        train(config)


@pytest.mark.parametrize(
    'change',
    [
        dict(default_hooks__checkpoint__save_begin=1),
        dict(train_cfg__dynamic_intervals=[(2, 3)]),
    ],
    ids=['it begins amid one', 'a later interval of validations'],
)
def test_no_checkpoint_lies_amid_an_accumulation(change, make_config, tmp_path):
    config = make_config(
        tmp_path, iters=4, interval=2, optim_wrapper__accumulative_counts=2,
        train_cfg__val_interval=2, **change,
    )  # fmt: skip
    with pytest.raises(ValueError, match='a multiple of 2'):
        train(config)


def test_a_best_checkpoint_amid_an_accumulation_is_refused(make_config, tmp_path):
    config = make_config(
        tmp_path, iters=4, interval=2, optim_wrapper__accumulative_counts=2,
        train_cfg__val_begin=1, train_cfg__val_interval=3,
    )  # fmt: skip
    config.default_hooks.pop('pictures')
    with pytest.raises(ValueError, match='a multiple of 2'):
        train(config)
