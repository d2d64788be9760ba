import re

import pytest
from command_line import command
from factory import DEMO, ROOT, save_segmentor
from mmengine.config import Config

pytestmark = pytest.mark.core

OFFLINE = DEMO.with_name(DEMO.name.replace('adm_', 'adm-offline_', 1))
PLAIN = ROOT / 'configs/pspnet/pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'


@pytest.fixture(scope='module')
def fresh_teacher(tmp_path_factory):
    config = Config.fromfile(OFFLINE).model.members.teacher
    for option in ('frozen', 'checkpoint'):
        config.pop(option)
    return save_segmentor(tmp_path_factory.mktemp('teacher') / 'fresh.pth', config)


def failed_lines(done):
    assert done.returncode == 1, done.stderr[-3000:]
    assert 'Traceback' not in done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith('  failed')]


def test_one_screen_and_nothing_left_behind(city, tmp_path):
    done = command('preflight', DEMO, cwd=tmp_path, SYNTHETIC_CITY_ROOT=str(city))
    assert done.returncode == 0, done.stderr[-3000:]
    for words in ('Members', 'Methods', 'Losses', 'Memory', 'Checks', '32 -> 64 by 1x1'):
        assert words in done.stdout
    assert len(done.stdout.splitlines()) < 60
    assert '\x1b' not in done.stdout
    assert not re.search('init|Init', done.stdout)
    assert list(tmp_path.iterdir()) == []


def test_missing_data(tmp_path):
    done = command('preflight', DEMO, cwd=tmp_path, SYNTHETIC_CITY_ROOT=str(tmp_path / 'nowhere'))
    (line,) = failed_lines(done)
    assert 'data folders' in line
    assert 'SYNTHETIC_CITY_ROOT' in done.stdout
    # What needs no data is there all the same.
    assert 'ResNetV1c-18 + PSPHead' in done.stdout


# In this process: test_a_teacher_that_was_never_trained.
@pytest.mark.slow
def test_an_untrained_teacher(city, tmp_path, fresh_teacher):
    environment = dict(SYNTHETIC_CITY_ROOT=str(city), TEACHER_CHECKPOINT=fresh_teacher)
    (line,) = failed_lines(command('preflight', OFFLINE, cwd=tmp_path, **environment))
    assert 'score of teacher' in line
    trained = command('train', OFFLINE, '--work-dir', 'run', cwd=tmp_path, **environment)
    assert trained.returncode == 2
    assert trained.stderr.startswith('mmseg-adm: preflight found what must be put right first:')
    assert not (tmp_path / 'run').exists()
    assert '--skip-preflight' in trained.stderr.strip().splitlines()[-1]


def test_a_plain_segmentor(city, tmp_path):
    options = ['--cfg-options', 'model.decode_head.num_classes=7']
    done = command('preflight', PLAIN, *options, cwd=tmp_path, SYNTHETIC_CITY_ROOT=str(city))
    (line,) = failed_lines(done)
    assert 'class counts' in line
    assert "'the model' predicts 7 classes" in ' '.join(done.stdout.split())
