import json
import re
from pathlib import Path

import pytest
import torch
from factory import DEMO, build, demo_config, distiller_config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from mmseg_adm.commands.train import train
from mmseg_adm.engine import QuietRunner
from mmseg_adm.engine.log_processor import learning_rates

PLAIN = next(DEMO.parents[1].glob('pspnet/pspnet_r18-w16-d8_1xb8-demo_synthetic-city-*.py'))
ADM = ('similarity', 'similarity_std', 'loss_projection', 'loss_consensus', 'loss_divergence')
# The teacher at a tenth of the rate, the student's backbone at a half.
RATES = dict(
    custom_keys={'members.teacher': dict(lr_mult=0.1), 'student.backbone': dict(lr_mult=0.5)}
)
SCHEDULES = dict(adm=dict(start=2, stop=5), dml=dict(ramp='linear', ramp_iters=3))


def table(*rows):
    line = '+-+-+-+'
    return [line, '| Class | IoU | Acc |', line, *(f'| {row} | # | # |' for row in rows), line]


def iteration(number):
    adm = ''.join(f' adm.{name}: #' for name in ADM) if number in (3, 4, 5) else ''
    return (
        f'INFO - Iter(train) [#/#] student.lr: # student.min_lr: # teacher.lr: # adm.lr: # eta: # '
        'time: # data_time: # dml.strength: # adm.strength: # loss: # student.decode.loss_ce: # '
        'student.decode.acc_seg: # teacher.decode.loss_ce: # teacher.decode.acc_seg: # '
        f'dml.loss_student: # dml.loss_teacher: #{adm}'
    )


CLASSES = (
    'road', 'sidewalk', 'building', 'wall', 'fence', 'pole', 'traffic light', 'traffic sign',
    'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'train',
    'motorcycle', 'bicycle',
)  # fmt: skip
SCREEN = [
    'INFO - Checkpoints will be saved to WORK_DIR.',
    *(iteration(number) for number in range(1, 7)),
    'INFO - Saving checkpoint at # iterations',
    *3 * ['INFO - Iter(val) [#/#] eta: # time: # data_time: #'],
    'INFO - Evaluating member: student',
    'INFO - per class results:',
    'INFO -',
    *table(*CLASSES),
    'INFO - Evaluating member: teacher',
    'INFO - per class results:',
    'INFO -',
    *table(*CLASSES),
    'INFO - Iter(val) [#/#] student/aAcc: # student/mIoU: # student/mAcc: # teacher/aAcc: # '
    'teacher/mIoU: # teacher/mAcc: # gap/mIoU: # agreement: # data_time: # time: #',
    'INFO - The best checkpoint with # student/mIoU at # iter is saved to '
    'best_student_mIoU_iter_#.pth.',
]


# Of MMEngine about itself; the commands filter them by their text.
THIRD_PARTY = ('WARNING - "FileClient" will be', 'WARNING - "HardDiskBackend" is the alias')


def words(text, work_dir):
    """What is on the screen, without its numbers, colors, widths and times."""
    text = re.sub(r'\x1b\[\d+m', '', text.replace(str(work_dir), 'WORK_DIR'))
    text = re.sub(r'\d\d/\d\d \d\d:\d\d:\d\d - mmengine - ', '', text)
    text = re.sub(r'\bmemory: \d+ +', '', text)
    text = re.sub(r'(?<![\w.])-?\d[\d.:]*(e[+-]\d+)?\b|\bnan\b', '#', text)
    text = re.sub(r'(?<=iter_)\d+', '#', text)
    text = re.sub(r'-+(?=\+)', '-', re.sub(' +', ' ', text))
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith(THIRD_PARTY)]


@pytest.fixture(scope='module')
def config(city):
    def make(work_dir, **options):
        return demo_config(
            city, work_dir, iters=6, optim_wrapper__paramwise_cfg=RATES,
            default_hooks__schedule__schedules=SCHEDULES, **options,
        )  # fmt: skip

    return make


@pytest.mark.core
def test_the_screen_of_a_training(config, tmp_path, capsys):
    capsys.readouterr()
    QuietRunner.from_cfg(config(tmp_path)).train()
    screen = capsys.readouterr()
    assert words(screen.out, tmp_path) == SCREEN
    assert screen.err == ''

    (path,) = tmp_path.glob('*/*.log')
    log = path.read_text()
    shown = [line for line in words(log, tmp_path) if 'Iter(train)' in line]
    assert len(shown) == 6
    for kept in ('System environment:', 'Config:\n', 'order:\nbefore_run', 'paramwise_options -- '):
        assert kept in log
        assert kept not in screen.out

    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()][:6]
    assert [line['adm.strength'] for line in lines] == [0, 0, 1, 1, 1, 0]
    assert [line['dml.strength'] for line in lines] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1])
    for number, line in enumerate(lines, start=1):
        assert {f'adm.{name}' in line for name in ADM} == {number in (3, 4, 5)}
        assert line['teacher.lr'] < 0.11 * line['student.lr']
        assert line['student.min_lr'] == pytest.approx(0.5 * line['student.lr'], rel=0.02)


def test_small_values_keep_their_digits(config, tmp_path, capsys):
    Runner.from_cfg(config(tmp_path, train_cfg__val_begin=1000)).train()
    lines = capsys.readouterr().out
    digits = re.findall(r'dml\.loss_student: (\S+)', lines)
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    values = [json.loads(line)['dml.loss_student'] for line in path.read_text().splitlines()]
    assert max(values) < 0.01
    assert [float(each) for each in digits] == pytest.approx(values, rel=1e-3)


def test_prefixes_of_a_hierarchy(config, tmp_path):
    options = config(tmp_path, train_cfg__val_begin=1000, log_processor__log_with_hierarchy=True)
    Runner.from_cfg(options).train()
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    line = json.loads(path.read_text().splitlines()[-1])
    assert {'train/teacher.lr', 'train/adm.strength', 'train/loss'} < line.keys()
    assert 'train/adm.loss_consensus' not in line


def test_the_log_of_a_plain_segmentor_is_mmengines(city, tmp_path):
    options = dict(train_cfg__val_begin=1000, config=PLAIN)
    Runner.from_cfg(demo_config(city, tmp_path, iters=1, **options)).train()
    (path,) = tmp_path.glob('*/vis_data/scalars.json')
    assert {'lr', 'loss', 'decode.loss_ce'} < json.loads(path.read_text()).keys()


def test_learning_rates_of_groups():
    model = build(
        distiller_config(dict(adm=dict(type='mmseg_adm.ADM'), kd=dict(type='mmseg_adm.DML')))
    )
    group = dict(optimizer=dict(type='SGD', lr=0.1))
    slow = dict(optimizer=dict(type='SGD', lr=0.01))
    wrapper = build_optim_wrapper(model, dict(
        constructor='mmseg_adm.GroupOptimWrapperConstructor',
        heads=dict(slow, modules=['members.student.decode_head', 'members.teacher']), rest=group,
    ))  # fmt: skip
    rates = learning_rates(model, [each.optimizer for each in wrapper.values()])
    expected = {'student.lr': 0.1, 'student.min_lr': 0.01, 'teacher.lr': 0.01, 'adm.lr': 0.1}
    assert rates == expected


def test_a_member_without_an_optimizer_has_no_rate():
    model = build(distiller_config())
    student = model.members['student'].parameters()
    assert learning_rates(model, [torch.optim.SGD(student, lr=0.1)]) == {'student.lr': 0.1}


@pytest.mark.core
def test_runs_of_one_second_have_a_folder_each(config, tmp_path, monkeypatch):
    monkeypatch.setattr('time.time', lambda: 1.7e9)
    folders = [QuietRunner.from_cfg(config(tmp_path)).log_dir for _ in range(3)]
    assert len(set(folders)) == 3
    assert all(len(list(Path(folder).glob(f'{Path(folder).name}.log'))) == 1 for folder in folders)


@pytest.mark.core
def test_runs_of_one_second_share_nothing(config, tmp_path, monkeypatch):
    """Neither logged values nor files, though in folders of their own they could have one name."""
    monkeypatch.setattr('time.time', lambda: 1.7e9)
    first, second = (QuietRunner.from_cfg(config(tmp_path / name)) for name in 'ab')
    assert first.message_hub is not second.message_hub
    assert first.logger is not second.logger
    assert first.visualizer is not second.visualizer
    first.message_hub.update_scalar('train/loss', 1.0)
    assert 'train/loss' not in second.message_hub.log_scalars


def test_default_hooks_that_are_none_are_left_out(city, tmp_path):
    """MMEngine leaves out its own ones alone, and asserts that the others are some."""
    config = demo_config(city, tmp_path, iters=1, train_cfg__val_begin=1000)
    left_out = {
        'pictures': 'ConsensusPictureHook',
        'preflight': 'PreflightHook',
        'data_check': 'DataCheckHook',
        'schedule': 'DistillScheduleHook',
        'student_checkpoint': 'StudentCheckpointHook',
        'checkpoint': 'CheckpointHook',
    }
    config.default_hooks.update(dict.fromkeys(left_out))
    runner = train(config)
    kinds = {type(hook).__name__ for hook in runner.hooks}
    assert not kinds & set(left_out.values())
    assert {'MemberPauseHook', 'LoggerHook'} <= kinds
    assert runner.iter == 1
    assert not list(tmp_path.glob('*.pth'))
