"""Two networks paired by the command line, and trained."""

import json
import math

import pytest
from command_line import Done, command
from mmengine.config import Config

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.config.pairing import paired_name

pytestmark = pytest.mark.core

PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
PAIR = ('--student', PSP, '--teacher', SEGFORMER, '--method', 'adm', '--no-pretrained')
SWAPPED = ('--student', SEGFORMER, '--teacher', PSP, '--method', 'adm', '--no-pretrained')
MEMBERS = ('student', 'teacher')
ITERS = 2


def small(data_root: str) -> list[str]:
    """Options that fit a pair to drawn data of 48 x 96 pixels and few iterations."""
    crop = '(48,64)'
    loaders = [f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
               for option in ('num_workers=0', 'persistent_workers=False')]  # fmt: skip
    return [
        *loaders,
        'train_dataloader.batch_size=2',
        f'train_dataloader.dataset.dataset.data_root={data_root}',
        f'val_dataloader.dataset.data_root={data_root}',
        f'test_dataloader.dataset.data_root={data_root}',
        'train_dataloader.dataset.dataset.pipeline.2.scale=(96,48)',
        f'train_dataloader.dataset.dataset.pipeline.3.crop_size={crop}',
        'val_dataloader.dataset.pipeline.1.scale=(96,48)',
        f'model.data_preprocessor.size={crop}',
        f'train_cfg.max_iters={ITERS}',
        f'train_cfg.val_interval={ITERS}',
        'default_hooks.logger.interval=1',
        f'default_hooks.checkpoint.interval={ITERS}',
        'default_hooks.preflight.enabled=False',
    ]


@pytest.fixture(scope='module')
def train(tmp_path_factory, city):
    """Trains as a user does, in a folder of its own."""
    folder = tmp_path_factory.mktemp('pairs')

    def run(*args: object) -> Done:
        return command('train', *args, cwd=folder)

    run.folder = folder
    return run


def log_of(work_dir):
    """Training losses and validation metrics by iteration."""
    (path,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return ({line['step']: line for line in lines if 'loss' in line},
            {line['step']: line for line in lines if 'loss' not in line})  # fmt: skip


def losses_of(lines):
    return {step: {name: value for name, value in line.items() if 'loss' in name}
            for step, line in lines.items()}  # fmt: skip


def mistake(done):
    assert done.returncode == 2, done.stderr[-3000:]
    return done.stderr.strip().splitlines()[-1]


def train_pair(train, city, flags):
    result = train(*flags, '--cfg-options', *small(city))
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'scheduler.step' not in result.stderr
    name = paired_name(flags[1], flags[3], 'adm')
    return train.folder / 'work_dirs' / name / f'{name}.py'


@pytest.fixture(scope='module')
def paired(train, city):
    """The config that the run of a convolutional student with a transformer has written."""
    return train_pair(train, city, PAIR)


def check_run(config, student, teacher):
    training, validation = log_of(config.parent)
    assert list(training) == [1, ITERS]
    for line in training.values():
        assert all(math.isfinite(value) for value in line.values())
        assert line['adm.loss_consensus'] > 0
        assert line['student.decode.loss_ce'] > 0
    metrics = validation[ITERS]
    assert all(f'{member}/mIoU' in metrics for member in MEMBERS)
    exported = config.parent / f'student_iter_{ITERS}.py'
    assert Config.fromfile(exported).model.backbone.type == student
    weights = read_checkpoint(config.parent / f'iter_{ITERS}.pth')['state_dict']
    assert {key.split('.')[1] for key in weights if key.startswith('members.')} == set(MEMBERS)
    assert Config.fromfile(config).model.members.teacher.backbone.type == teacher


@pytest.mark.slow
def test_a_student_of_convolutions_and_a_transformer(paired):
    check_run(paired, 'ResNetV1c', 'MixVisionTransformer')
    training, _ = log_of(paired.parent)
    # Each with the optimizer of its own config: at the start of its schedule.
    assert training[1]['student.lr'] == pytest.approx(0.01)
    assert training[1]['teacher.lr'] < 1e-8


@pytest.mark.slow
def test_the_written_config_runs_alone(train, paired):
    result = train(paired, '--work-dir', 'again')
    assert result.returncode == 0, result.stderr[-3000:]
    first, metrics = log_of(paired.parent)
    again, metrics_again = log_of(train.folder / 'again')
    assert losses_of(again) == losses_of(first)
    assert metrics_again[ITERS]['student/mIoU'] == metrics[ITERS]['student/mIoU']
    written = train.folder / 'again' / paired.name
    assert written.is_file()
    configs = [Config.fromfile(path).to_dict() for path in (written, paired)]
    for config in configs:
        config.pop('work_dir')
    assert configs[0] == configs[1]


@pytest.mark.slow
def test_a_transformer_and_a_teacher_of_convolutions(train, city):
    config = train_pair(train, city, SWAPPED)
    check_run(config, 'MixVisionTransformer', 'ResNetV1c')
    training, _ = log_of(config.parent)
    assert training[1]['student.lr'] < 1e-8
    assert training[1]['teacher.lr'] == pytest.approx(0.01)


@pytest.mark.slow
def test_a_frozen_teacher_from_the_weights_of_a_run(train, city, paired):
    """Those of the member of a distiller's checkpoint, beside what that run has exported."""
    checkpoint = paired.parent / f'student_iter_{ITERS}.pth'
    flags = ['--student', PSP, '--teacher', PSP, '--method', 'cwd', '--no-pretrained',
             '--teacher-checkpoint', checkpoint, '--work-dir', 'frozen']  # fmt: skip
    result = train(*flags, '--cfg-options', *small(city))
    assert result.returncode == 0, result.stderr[-3000:]
    training, validation = log_of(train.folder / 'frozen')
    assert training[1]['cwd.loss_cwd'] > 0
    _, metrics = log_of(paired.parent)
    assert validation[ITERS]['teacher/mIoU'] == metrics[ITERS]['student/mIoU']


@pytest.mark.slow
def test_the_data_of_the_teacher(train, city):
    """Its crop is another one: seen by both members, at the size that it is given."""
    flags = [*PAIR, '--dataset-from', 'teacher', '--work-dir', 'other_data']
    result = train(*flags, '--cfg-options', *small(city))
    assert result.returncode == 0, result.stderr[-3000:]
    (config,) = (train.folder / 'other_data').glob('adm_*.py')
    assert Config.fromfile(config).train_cfg.max_iters == ITERS


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.slow
def test_flags_that_do_not_fit_together(train):
    assert mistake(train('--student', PSP)) == 'mmseg-adm: --student needs a --teacher'


def test_a_missing_config(train):
    line = mistake(
        train('--student', PSP.replace('r18', 'r19'), '--teacher', PSP, '--method', 'adm')
    )
    assert line.startswith("mmseg-adm: mmseg has no config 'pspnet/pspnet_r19-d8")
    assert 'Nearest: ' in line


@pytest.mark.slow
def test_no_data(train):
    flags = [*PAIR, '--cfg-options', *small(str(train.folder / 'nowhere'))]
    line = mistake(train(*flags))
    assert line.startswith('mmseg-adm: train data (CityscapesDataset)')
    assert 'nowhere' in line


@pytest.mark.slow
def test_another_number_of_classes(train, city):
    options = [*small(city), 'model.members.teacher.decode_head.num_classes=7']
    result = train(*PAIR, '--work-dir', 'classes', '--cfg-options', *options)
    assert result.returncode == 2
    text = "different numbers of classes ({'student': 19, 'teacher': 7}): set decode_head.num_clas"
    assert text in result.stderr
