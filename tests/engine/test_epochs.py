"""Trainings that count epochs, on the stream that a resumed run finds its place in."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from factory import demo_config, differences
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from plain_configs import plain
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.config.lengths import check_lengths
from mmseg_adm.datasets import StreamDataset, StreamSampler
from mmseg_adm.engine import DataStreamHook, QuietRunner, TrainingRunner

pytestmark = pytest.mark.core


class Seen(Hook):
    """Keeps which images an epoch saw."""

    def __init__(self):
        self.epochs = []

    def before_train_epoch(self, runner):
        self.epochs.append([])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.epochs[-1] += [sample.img_path for sample in data_batch['data_samples']]


def by_epochs(city, work_dir, epochs, **options):
    """Two batches an epoch."""
    config = demo_config(city, work_dir, **options)
    config.train_dataloader.dataset.dataset.indices = 4
    config.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=epochs, val_begin=100)
    config.default_hooks.checkpoint.update(by_epoch=True, interval=1, save_best=None)
    for name in ('pictures', 'student_checkpoint', 'data_check'):
        config.default_hooks.pop(name)
    config.experiment_name = f'{work_dir}_{epochs}'
    return config


def test_no_epoch_ends_amid_an_accumulation(city, tmp_path):
    config = by_epochs(city, tmp_path / 'run', 2)
    config.optim_wrapper.accumulative_counts = 4
    with pytest.raises(ValueError, match=r'every 2 iterations .* over 4, .* multiple of 4'):
        Runner.from_cfg(config).train()


def test_epochs_end_and_resume_exactly(city, tmp_path):
    def train(folder, epochs, **options):
        runner = Runner.from_cfg(by_epochs(city, tmp_path / folder, epochs, **options))
        seen = Seen()
        runner.register_hook(seen)
        runner.train()
        assert runner.iter == 2 * epochs
        return seen.epochs, read_checkpoint(tmp_path / folder / f'epoch_{epochs}.pth')

    epochs, expected = train('through', 2)
    assert [len(set(images)) for images in epochs] == [4, 4]
    assert epochs[0] != epochs[1]
    assert set(epochs[0]) == set(epochs[1])
    train('stopped', 1)
    resumed, found = train('stopped', 2, resume=True)
    assert resumed == epochs[1:]
    for part in ('state_dict', 'optimizer'):
        assert differences(found[part], expected[part]) == []


# ------------------------------------------------------------------------------- without a run


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, text):
        self.lines.append(text)


def runner_of(sampler, loop=IterBasedTrainLoop, custom=False, **loop_options):
    """What the hook asks of a runner."""
    options = dict(sampler=sampler, batch_size=2)
    if custom:
        options = dict(batch_sampler=BatchSampler(sampler, 2, drop_last=True))
    loop = object.__new__(loop)
    vars(loop).update(loop_options)
    data = StreamDataset(range(5))
    return SimpleNamespace(
        _randomness_cfg={},
        train_dataloader=DataLoader(data, **options),
        train_loop=loop,
        seed=3,
        epoch=4,
        logger=Log(),
    )


@pytest.mark.parametrize('custom', [False, True])
def test_the_hook_lets_epochs_end_in_a_loop_by_epochs_alone(custom):
    for loop, length in ((EpochBasedTrainLoop, 5), (IterBasedTrainLoop, 12)):
        sampler = StreamSampler(StreamDataset(range(5)), seed=3)
        DataStreamHook().before_train_epoch(runner_of(sampler, loop, custom))
        assert len([position for position, _ in zip(sampler, range(12))]) == length  # noqa: B905


def test_a_stream_of_another_seed_is_refused_also_inside_a_batch_sampler():
    sampler = StreamSampler(StreamDataset(range(5)), seed=4)
    for custom in (False, True):
        with pytest.raises(ValueError, match=r'has seed 4, .* has 3: set randomness\.seed=3'):
            DataStreamHook().before_train(runner_of(sampler, custom=custom))


def test_the_exact_stream_is_not_talked_about():
    sampler = StreamSampler(StreamDataset(range(5)), seed=3)
    runner = runner_of(sampler, fast_forward_on_resume=False)
    DataStreamHook().before_train(runner)
    assert runner.logger.lines == []


@pytest.mark.parametrize('sampler', [InfiniteSampler(range(5)), RandomSampler(range(5))])
def test_a_sampler_that_cannot_resume_exactly_is_said(sampler):
    runner = runner_of(sampler)
    DataStreamHook().before_train(runner)
    (line,) = runner.logger.lines
    name = type(sampler).__name__
    assert line.startswith(f'A resumed run would see other images than this one: {name} draws')
    assert "sampler=dict(type='mmseg_adm.StreamSampler')" in line


def test_a_loop_that_does_not_find_its_place_is_said():
    sampler = StreamSampler(StreamDataset(range(5)), seed=3)
    runner = runner_of(sampler, fast_forward_on_resume=True)
    DataStreamHook().before_train(runner)
    (line,) = runner.logger.lines
    assert 'set train_cfg.fast_forward_on_resume=False' in line


def test_a_training_without_the_hook_says_what_that_means(city, tmp_path, monkeypatch):
    config = by_epochs(city, tmp_path, 1)
    hook = config.default_hooks.pop('data_stream')
    monkeypatch.setattr(QuietRunner, 'train', lambda self: None)
    for hooks, said in (([], True), ([hook], False)):
        config.merge_from_dict(dict(custom_hooks=hooks, experiment_name=f'{tmp_path}{said}'))
        runner = TrainingRunner.from_cfg(config)
        runner.train()
        log = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
        text = 'WARNING - A resumed run would draw other random numbers'
        assert (text in log) is said


EPOCHS = dict(type='EpochBasedTrainLoop', max_epochs=3)
STREAM = dict(data_stream=dict(type='mmseg_adm.DataStreamHook'))


@pytest.mark.parametrize('loop', [EPOCHS, dict(EPOCHS, type=EpochBasedTrainLoop),
                                  dict(by_epoch=True, max_epochs=3)])  # fmt: skip
@pytest.mark.parametrize(
    ('sampler', 'hooks', 'text'),
    [
        ('InfiniteSampler', STREAM, r"InfiniteSampler ends none: set .*type='DefaultSampler'"),
        (InfiniteSampler, {}, 'InfiniteSampler ends none'),
        ('mmengine.dataset.InfiniteSampler', {}, 'InfiniteSampler ends none'),
        ('mmseg_adm.StreamSampler', {}, r"StreamSampler ends none: .*'mmseg_adm\.DataStreamHook'"),
    ],
)
def test_epochs_without_end_are_refused(loop, sampler, hooks, text):
    config = plain(train_cfg=loop, default_hooks=hooks)
    config.train_dataloader.sampler = dict(type=sampler)
    with pytest.raises(ValueError, match=f'train_cfg counts epochs, and .*{text}'):
        check_lengths(config)


@pytest.mark.parametrize(
    ('loop', 'sampler'),
    [
        (EPOCHS, 'mmseg_adm.StreamSampler'),
        (EPOCHS, 'DefaultSampler'),
        (dict(type='IterBasedTrainLoop', max_iters=3), 'InfiniteSampler'),
        (dict(by_epoch=False, max_iters=3), 'InfiniteSampler'),
    ],
)
def test_epochs_that_end_and_none_at_all_are_taken(loop, sampler):
    config = plain(train_cfg=loop, default_hooks=STREAM)
    config.train_dataloader.sampler = dict(type=sampler)
    check_lengths(config)
