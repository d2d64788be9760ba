import pytest
import torch
from factory import ROOT, build, demo_config, differences
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.checkpoint import read_checkpoint, safe_loading
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
    'ramp': dict(default_hooks__schedule__schedules=dict(adm=RAMP)),
    'averaged teacher': dict(
        model__members__mean_teacher=dict(type='mmseg_adm.EMATeacher', momentum=0.2),
        model__methods__adm__target='mean_teacher',
    ),
    'averaged weights': dict(custom_hooks=[dict(type='EMAHook', momentum=0.2)]),
}


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


@pytest.mark.parametrize('case', CASES)
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
    assert 'ema_state_dict' in uninterrupted('averaged weights')


def test_workers_make_no_difference(uninterrupted):
    assert differences(uninterrupted('no workers'), uninterrupted('two workers')) == []


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


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(train_dataloader__batch_size=3), r'\n  train_dataloader.batch_size: 2 then, 3 now\n'),
        (
            dict(optim_wrapper__accumulative_counts=2),
            r'\n  optim_wrapper\.accumulative_counts: not set then, 2 now\n',
        ),
        (
            dict(optim_wrapper__optimizer=dict(type='SGD', lr=0.1)),
            r'\n  optim_wrapper\.optimizer\.lr: 0.002 then, 0.1 now\n(.*\n)*'
            r'  optim_wrapper\.optimizer\.type: AdamW then, SGD now\n',
        ),
        (
            dict(model__methods__kd__tau=2.0, model__methods__adm=None),
            r'\n  model\.methods\.adm\.type: mmseg_adm\.ADM then, not set now\n(.*\n)*'
            r'  model\.methods\.kd\.tau: \S+ then, 2.0 now\n',
        ),
        (dict(randomness__seed=7), r'data stream has seed 7.* has 0: set randomness.seed=0'),
    ],
)
def test_another_setting_is_not_resumed(change, text, make_config, first_checkpoint, tmp_path):
    config = make_config(
        tmp_path, iters=4, interval=4, config=OFFLINE, load_from=str(first_checkpoint),
        resume=True, **change,
    )  # fmt: skip
    with pytest.raises(ValueError, match=text):
        train(config)


def test_another_teacher_is_not_resumed(make_config, first_checkpoint, teacher, tmp_path):
    config = make_config(
        tmp_path, iters=2, config=OFFLINE, load_from=str(first_checkpoint), resume=True,
        model__members__teacher__checkpoint=teacher[1],
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r'would not continue it:\n  weights of teacher \(sha256\)'
    ):
        train(config)


def test_the_guard_can_be_switched_off_as_its_message_says(make_config, first_checkpoint, tmp_path):
    config = make_config(
        tmp_path, iters=2, config=OFFLINE, load_from=str(first_checkpoint), resume=True,
        train_dataloader__batch_size=3,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r'default_hooks\.resume_guard\.strict=False'):
        train(config)
    config.merge_from_dict({'default_hooks.resume_guard.strict': False})
    assert train(config) == [1]
    logs = ''.join(path.read_text() for path in tmp_path.glob('*/*.log'))
    warning = 'WARNING - Resumed a run with other settings:\n  train_dataloader.batch_size: 2 then'
    assert warning in logs


def test_another_number_of_processes_is_not_resumed(make_config, first_checkpoint, tmp_path):
    checkpoint = read_checkpoint(first_checkpoint)
    checkpoint['meta']['mmseg_adm']['processes'] = 2
    torch.save(checkpoint, tmp_path / 'two_processes.pth')
    config = make_config(
        tmp_path, iters=2, config=OFFLINE, load_from=str(tmp_path / 'two_processes.pth'),
        resume=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match='processes: 2 then, 1 now'):
        train(config)


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


def test_a_best_checkpoint_amid_an_accumulation_is_refused(make_config, tmp_path):
    config = make_config(
        tmp_path, iters=4, interval=2, optim_wrapper__accumulative_counts=2,
        train_cfg__val_begin=1, train_cfg__val_interval=3,
    )  # fmt: skip
    config.default_hooks.pop('pictures')
    with pytest.raises(ValueError, match='a multiple of 2'):
        train(config)
