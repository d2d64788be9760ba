"""Where else a run is logged to."""

import pytest
from command_line import command
from factory import DEMO, demo_config
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import LocalVisBackend, WandbVisBackend

import mmseg_adm
from mmseg_adm.config import add_tensorboard, trackers
from mmseg_adm.config.structure import backends_of
from mmseg_adm.config.trackers import PACKAGES, TENSORBOARD, check_trackers

pytestmark = pytest.mark.core
LOCAL = dict(type='LocalVisBackend')


class TeamsWandb(WandbVisBackend):
    """A backend of the user's, as pure-Python configs write it."""


def logged_by(*backends) -> Config:
    return Config(dict(visualizer=dict(type='SegLocalVisualizer', vis_backends=[*backends])))


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(trackers, 'find_spec', lambda name: None)


def test_every_tracker_of_mmengine_is_known():
    found = {name for name in VISBACKENDS.module_dict if name.endswith('VisBackend')}
    assert found - {'LocalVisBackend'} == set(PACKAGES)


@pytest.mark.parametrize('name', PACKAGES)
def test_a_tracker_that_is_not_installed_is_refused(name, nothing_installed):
    package = PACKAGES[name]
    text = f'vis_backends.1: {name} writes by {package}, .* pip install {package}$'
    with pytest.raises(ValueError, match=text):
        check_trackers(logged_by(LOCAL, dict(type=name)))


@pytest.mark.parametrize('kind', [TeamsWandb, WandbVisBackend, 'mmengine.WandbVisBackend'])
def test_so_is_one_of_the_users_and_one_that_is_a_class(kind, nothing_installed):
    with pytest.raises(ValueError, match=r'vis_backends\.0: WandbVisBackend writes by wandb'):
        check_trackers(logged_by(dict(type=kind)))


def test_files_need_nothing(nothing_installed):
    check_trackers(logged_by(LOCAL))
    check_trackers(logged_by(LocalVisBackend('here')))
    check_trackers(Config(dict(visualizer=None)))


def test_what_is_installed_is_taken(monkeypatch):
    monkeypatch.setattr(trackers, 'find_spec', lambda name: object())
    check_trackers(logged_by(*(dict(type=name) for name in PACKAGES)))


@pytest.mark.parametrize('given', [None, dict(type='SegLocalVisualizer', vis_backends=[LOCAL])])
def test_tensorboard_joins_what_is_there_once(given):
    config = Config(dict(visualizer=given))
    for _ in range(2):
        add_tensorboard(config)
    assert [each['type'] for _, each in backends_of(config)] == ['LocalVisBackend', TENSORBOARD]


def test_without_tensorboard_the_flag_is_one_line_and_nothing_is_left(
    nothing_installed, city, tmp_path
):
    done = command('train', DEMO, '--tensorboard', cwd=tmp_path, SYNTHETIC_CITY_ROOT=str(city))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith('pip install tensorboard\n')
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_losses_metrics_and_pictures_are_written_for_tensorboard(city, tmp_path):
    pytest.importorskip('tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runner = mmseg_adm.train(demo_config(city, tmp_path, iters=2), tensorboard=True)
    (events,) = tmp_path.glob('*/vis_data/events.out.tfevents.*')
    assert str(events.parent) == f'{runner.log_dir}/vis_data'
    written = EventAccumulator(str(events)).Reload()
    tags = written.Tags()
    for name in ('student.decode.loss_ce', 'adm.loss_consensus', 'student/mIoU', 'agreement'):
        assert name in tags['scalars']
    assert tags['images'] == ['consensus_0']
    (line,) = Config.fromfile(next(tmp_path.glob('*.py'))).visualizer.vis_backends[1:]
    assert line.type == TENSORBOARD
