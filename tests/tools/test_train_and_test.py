import hashlib
import json
import math
import shutil
from pathlib import Path

import cv2
import mmengine
import pytest
import torch
from command_line import Done, command
from factory import DEMO, ROOT
from mmengine.config import Config
from plans import write_plan
from torch.testing import assert_close

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.commands.test import write_label_maps

OFFLINE = DEMO.with_name(DEMO.name.replace('adm_', 'adm-offline_', 1))
TEACHER_ALONE = ROOT / 'configs/pspnet/pspnet_r18-w32-d8_1xb8-demo_synthetic-city-96x128.py'
MEMBERS = ('student', 'teacher')
IMAGES = 3  # of the validation set of `city`

pytestmark = pytest.mark.core


def narrow(network: str, width: int) -> list[str]:
    return [
        f'{network}.backbone.base_channels={width}',
        f'{network}.backbone.stem_channels={width}',
        f'{network}.decode_head.in_channels={8 * width}',
        f'{network}.decode_head.channels={2 * width}',
        f'{network}.backbone.norm_cfg.momentum=0.5',
        f'{network}.decode_head.norm_cfg.momentum=0.5',
    ]


# The learning rate and the statistics: predictions that differ from place to place so soon.
SMALL = [
    'optim_wrapper.optimizer.lr=0.001',
    'train_cfg.max_iters=4',
    'train_cfg.val_interval=4',
    'train_dataloader.batch_size=2',
    'default_hooks.checkpoint.interval=4',
    'default_hooks.logger.interval=1',
    *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
      for option in ('num_workers=0', 'persistent_workers=False')),
]  # fmt: skip
SMALL_PAIR = [*SMALL, *narrow('model.members.student', 4), *narrow('model.members.teacher', 8)]
SMALL_TEACHER = [*SMALL, *narrow('model', 8)]


class Tools:
    """Runs commands as a user does, in a folder of their own."""

    def __init__(self, folder: Path, data_root: Path) -> None:
        self.folder = folder
        self.data_root = str(data_root)

    def attempt(self, *argv: object, **environment: str) -> Done:
        environment = {'SYNTHETIC_CITY_ROOT': self.data_root} | environment
        return command(*argv, cwd=self.folder, **environment)

    def __call__(self, *argv: object, **environment: str) -> str:
        done = self.attempt(*argv, **environment)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope='module')
def tools(tmp_path_factory, city):
    return Tools(tmp_path_factory.mktemp('tools'), city)


@pytest.fixture(scope='module')
def trained(tools):
    """Where four iterations of the demo were written."""
    tools('train', DEMO, '--work-dir', 'demo', '--cfg-options', *SMALL_PAIR)
    return tools.folder / 'demo'


@pytest.fixture(scope='module')
def written(trained):
    """The files that they left."""
    return {str(path.relative_to(trained)) for path in trained.rglob('*') if path.is_file()}


@pytest.fixture(scope='module')
def resumed(tools, trained, written):
    """The same folder after two more."""
    options = [*SMALL_PAIR, 'train_cfg.max_iters=6']
    tools('train', DEMO, '--work-dir', 'demo', '--resume', '--cfg-options', *options)
    return trained


@pytest.fixture(scope='module')
def tested(tools, resumed):
    """Metrics of all members in one pass, with label maps in ``maps``."""
    return evaluate(tools, 'tested', '--out', 'maps')


@pytest.fixture(scope='module')
def augmented(tools, resumed):
    """The same with test-time augmentation, in ``maps_tta``, and pictures in ``painted``."""
    return evaluate(tools, 'tta', '--tta', '--out', 'maps_tta', '--show-dir', 'painted')


@pytest.fixture(scope='module')
def alone(tools):
    """Where the teacher's architecture was trained alone."""
    tools('train', TEACHER_ALONE, '--work-dir', 'alone', '--cfg-options', *SMALL_TEACHER)
    return tools.folder / 'alone'


def evaluate(tools: Tools, folder: str, *flags: str) -> dict[str, float]:
    tools('test', DEMO, 'demo/iter_6.pth', '--work-dir', folder, *flags,
          '--cfg-options', *SMALL_PAIR)  # fmt: skip
    return metrics_in(tools.folder / folder)


def metrics_in(work_dir: Path) -> dict[str, float]:
    """What a test wrote, in one file or in one per member."""
    lines = [line for path in work_dir.glob('*/*.json') for line in path.read_text().splitlines()]
    return {name: value for line in lines for name, value in json.loads(line).items()}


def log_of(work_dir: Path, run: int = 0) -> tuple[dict[int, dict], dict[int, dict]]:
    """Training losses and validation metrics by iteration, as a training run logged them."""
    path = sorted(work_dir.glob('*/vis_data/scalars.json'))[run]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    training = {line['step']: line for line in lines if 'loss' in line}
    return training, {line['step']: line for line in lines if 'loss' not in line}


def label_maps(folder: Path) -> dict[str, object]:
    return {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in folder.glob('*.png')}


def mistake(done: Done) -> str:
    """What is said of it, which is all that is said."""
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.startswith('mmseg-adm: ')
    return done.stderr.removeprefix('mmseg-adm: ').rstrip()


def test_training_writes_what_is_needed(trained, written):
    for checkpoint in ('iter_4', 'best_student_mIoU_iter_4'):
        assert {f'{checkpoint}.pth', f'student_{checkpoint}.pth', f'student_{checkpoint}.py'} <= (
            written
        )
    assert DEMO.name in written
    assert (trained / 'last_checkpoint').read_text().endswith('iter_4.pth')
    picture = cv2.imread(str(trained / 'pictures' / 'consensus_0_iter_4.png'))
    assert picture.std() > 10


def test_training_logs_every_term_and_member(trained):
    training, validation = log_of(trained)
    assert list(training) == [1, 2, 3, 4]
    for line in training.values():
        assert all(math.isfinite(value) for value in line.values())
        terms = {name for name in line if 'loss' in name}
        assert terms == {
            'loss', 'student.decode.loss_ce', 'teacher.decode.loss_ce', 'dml.loss_student',
            'dml.loss_teacher', 'adm.loss_projection', 'adm.loss_consensus', 'adm.loss_divergence',
        }  # fmt: skip
        assert line['loss'] == pytest.approx(sum(line[term] for term in terms - {'loss'}))
        assert -1 <= line['adm.similarity'] <= 1
    (metrics,) = validation.values()
    gap = metrics['teacher/mIoU'] - metrics['student/mIoU']
    assert metrics['gap/mIoU'] == pytest.approx(gap, abs=0.011)
    assert 0 < metrics['agreement'] <= 100


@pytest.mark.slow
def test_resuming_goes_on_where_it_stopped(resumed):
    training, validation = log_of(resumed, run=1)
    assert list(training) == [5, 6]
    assert list(validation) == [6]
    assert read_checkpoint(resumed / 'iter_6.pth')['meta']['iter'] == 6
    assert (resumed / 'student_iter_6.pth').is_file()


def test_testing_agrees_with_the_last_validation(tested, resumed):
    _, validation = log_of(resumed, run=1)
    expected = {name: value for name, value in validation[6].items() if '/m' in name}
    assert {'student/mIoU', 'teacher/mIoU', 'student/mAcc', 'gap/mIoU'} <= set(expected)
    assert {name: tested[name] for name in expected} == expected
    assert 0 < tested['student/mIoU'] != tested['teacher/mIoU'] > 0
    assert tested['agreement'] == validation[6]['agreement']


def test_label_maps_of_each_member(tools, tested, city):
    names = {path.name for path in city.glob('leftImg8bit/val/*/*.png')}
    assert len(names) == IMAGES
    maps = {member: label_maps(tools.folder / 'maps' / member) for member in MEMBERS}
    for member in MEMBERS:
        assert set(maps[member]) == names
        assert all(labels.max() < 19 for labels in maps[member].values())
    agreement = [(maps['student'][name] == maps['teacher'][name]).mean() for name in names]
    # Over all pixels; the metric counts the labeled ones.
    assert 100 * sum(agreement) / IMAGES == pytest.approx(tested['agreement'], abs=5)


@pytest.mark.parametrize('member', MEMBERS)
def test_one_member_scores_as_among_all(member, tools, tested):
    metrics = evaluate(tools, f'only_{member}', '--member', member, '--out', 'maps_of_one')
    scores = {name: value for name, value in tested.items() if name.startswith(f'{member}/')}
    assert {name: metrics[name] for name in scores} == scores
    assert not [name for name in metrics if '/' in name and not name.startswith(f'{member}/')]
    alone, among_all = (
        label_maps(tools.folder / name / member) for name in ('maps_of_one', 'maps')
    )
    assert set(alone) == set(among_all)
    assert all((alone[name] == among_all[name]).all() for name in alone)


@pytest.mark.parametrize('member', MEMBERS)
def test_test_time_augmentation_predicts_otherwise(member, tools, tested, augmented):
    assert 0 < augmented[f'{member}/mIoU'] <= 100
    plain, other = (label_maps(tools.folder / name / member) for name in ('maps', 'maps_tta'))
    assert set(other) == set(plain)
    assert any((other[name] != plain[name]).any() for name in plain)


@pytest.mark.parametrize('member', MEMBERS)
def test_painted_images(member, tools, augmented, city):
    painted = {path.name: path for path in (tools.folder / 'painted' / member).rglob('test_*.png')}
    assert len(painted) == IMAGES
    for path in city.glob('leftImg8bit/val/*/*.png'):
        original = cv2.imread(str(path))
        (picture,) = (cv2.imread(str(painted[name])) for name in painted if path.stem in name)
        assert picture.std() > 10
        assert picture.shape != original.shape or (picture != original).any()


def test_export_writes_what_the_hook_writes(tools, resumed):
    printed = tools('export', DEMO, 'demo/iter_6.pth', '--out', 'exported/student.pth',
                    '--cfg-options', *SMALL_PAIR)  # fmt: skip
    assert 'wrote exported/student.pth and exported/student.py' in printed
    exported = read_checkpoint(tools.folder / 'exported' / 'student.pth')
    hooked = read_checkpoint(resumed / 'student_iter_6.pth')
    assert_close(exported['state_dict'], hooked['state_dict'], rtol=0, atol=0)
    assert exported['meta'] == hooked['meta']
    config = Config.fromfile(tools.folder / 'exported' / 'student.py')
    assert config.model == Config.fromfile(resumed / 'student_iter_6.py').model
    assert config.model.type == 'EncoderDecoder'


@pytest.mark.parametrize('name', ['test', 'export'])
def test_weights_that_are_not_finite_are_refused(name, tools, resumed):
    checkpoint = read_checkpoint(resumed / 'iter_6.pth')
    key = 'members.student.decode_head.conv_seg.bias'
    checkpoint['state_dict'][key][0] = math.nan
    torch.save(checkpoint, tools.folder / 'nan.pth')
    line = mistake(tools.attempt(name, DEMO, 'nan.pth', '--cfg-options', *SMALL_PAIR))
    assert 'nan.pth holds weights that are not finite (NaN or infinite): ' in line
    assert line.partition('infinite): ')[2].startswith(key if name == 'test' else key[16:])
    if name == 'export':
        assert not (tools.folder / 'export').exists()
        tools(name, DEMO, 'nan.pth', '--member', 'teacher', '--out', 'kept/teacher.pth',
              '--cfg-options', *SMALL_PAIR)  # fmt: skip


def test_changes_are_of_a_run_that_is_resumed(tools):
    options = ['--allow-changes', '--cfg-options', *SMALL_PAIR]
    line = mistake(tools.attempt('train', DEMO, *options))
    assert line == '--allow-changes belongs to --resume: a new run has nothing to change'
    assert not (tools.folder / 'work_dirs').exists()


def test_a_changed_run_is_resumed_where_that_is_meant(tools, resumed):
    shutil.copytree(resumed, tools.folder / 'changed')
    options = [*SMALL_PAIR, 'train_cfg.max_iters=7', 'model.methods.dml.weight=0.5']
    line = ['train', DEMO, '--work-dir', 'changed', '--resume', '--cfg-options', *options]
    text = mistake(tools.attempt(*line))
    assert 'model.methods.dml.weight: not set then, 0.5 now' in text
    assert 'To resume all the same: --allow-changes' in text
    tools(*line, '--allow-changes')
    assert (tools.folder / 'changed' / 'iter_7.pth').is_file()


def hashes(folder: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob('*')
        if path.is_file()
    }


def brief(line: list[str] | None) -> str:
    return ' '.join(word for word in line or ['nothing'] if '/' not in word)


WRITTEN = f'demo/{DEMO.name}'
CHECKPOINT = 'demo/iter_6.pth'


@pytest.mark.parametrize(
    ('line', 'new'),
    [
        (['test', WRITTEN, CHECKPOINT], 'demo/test/*/'),
        # Into the training's own folder, where mmseg would replace its config.
        (['test', WRITTEN, CHECKPOINT, '--work-dir', 'demo', '--out', 'demo/maps'], 'demo/*/'),
        pytest.param(
            ['test', WRITTEN, CHECKPOINT, '--show-dir', 'demo/shown'],
            'demo/*/',
            marks=pytest.mark.slow,
        ),
        (['test', WRITTEN, CHECKPOINT, '--member', 'teacher', '--tta'], 'demo/test/*/'),
        pytest.param(['preflight', WRITTEN], None, marks=pytest.mark.slow),
        (['export', WRITTEN, CHECKPOINT], 'demo/export/'),
        (['export', WRITTEN, CHECKPOINT, '--member', 'teacher'], 'demo/export/'),
        pytest.param(
            ['export', '--onnx', WRITTEN, CHECKPOINT], 'demo/export/', marks=pytest.mark.slow
        ),
        pytest.param(['profile', WRITTEN, '--rounds', '1'], None, marks=pytest.mark.slow),
        (['benchmark', 'plans/tiny.py', '--report', '--work-dir', 'demo'], None),
        (['info'], None),
    ],
    ids=lambda value: None if isinstance(value, str) else brief(value),
)
def test_a_training_owns_its_files(line, new, tools, resumed):
    write_plan(tools.folder, {})
    before = hashes(resumed)
    tools(*line)
    after = hashes(resumed)
    assert {path: after.get(path) for path in before} == before
    added = [path.relative_to(tools.folder) for path in after.keys() - before.keys()]
    assert bool(added) == (new is not None)
    assert all(path.match(f'{new}*') or any(parent.match(new) for parent in path.parents)
               for path in added)  # fmt: skip


def test_an_evaluation_keeps_the_config_that_it_ran_with(tools, resumed):
    tools('test', WRITTEN, CHECKPOINT, '--member', 'teacher', '--work-dir', 'kept')
    (kept,) = (tools.folder / 'kept').glob(f'*/{DEMO.name}')
    assert Config.fromfile(kept).model.student == 'teacher'
    assert Config.fromfile(kept).load_from == CHECKPOINT


def test_a_plain_config_trains_and_tests_alike(tools, alone):
    _, validation = log_of(alone)
    flags = ['--work-dir', 'alone_tested', '--cfg-options', *SMALL_TEACHER]
    tools('test', TEACHER_ALONE, 'alone/iter_4.pth', *flags)
    metrics = metrics_in(tools.folder / 'alone_tested')
    assert metrics['mIoU'] == validation[4]['mIoU']
    assert not list(alone.glob('student_*'))


@pytest.mark.slow
def test_a_plain_checkpoint_teaches_offline_in_mixed_precision(tools, alone):
    checkpoint = alone / 'iter_4.pth'
    flags = ['--work-dir', 'offline', '--amp', '--skip-preflight', '--cfg-options', *SMALL_PAIR]
    tools('train', OFFLINE, *flags, TEACHER_CHECKPOINT=str(checkpoint))
    saved = read_checkpoint(tools.folder / 'offline' / 'iter_4.pth')
    assert not [name for name in saved['state_dict'] if 'teacher' in name]
    assert any('sha256' in key and 'teacher' in key for key in saved['meta']['mmseg_adm'])

    training, validation = log_of(tools.folder / 'offline')
    assert list(training) == [1, 2, 3, 4]
    for line in training.values():
        assert all(math.isfinite(value) for value in line.values())
        assert not [name for name in line if name.startswith('teacher')]
        assert line['kd.loss_kl'] > 0
    _, validation_alone = log_of(alone)
    assert validation[4]['teacher/mIoU'] == validation_alone[4]['mIoU']

    dumped = Config.fromfile(tools.folder / 'offline' / OFFLINE.name)
    wrapper = 'AmpOptimWrapper' if torch.cuda.is_available() else 'mmseg_adm.CPUAmpOptimWrapper'
    assert dumped.optim_wrapper.type == wrapper
    assert dumped.model.members.teacher.checkpoint == str(checkpoint)


def test_several_metrics_of_one_member_in_every_way(tools, resumed, augmented):
    (tools.folder / 'several.py').write_text(f"""
_base_ = './demo/{DEMO.name}'
test_evaluator = dict(_delete_=True, type='Evaluator', metrics=[
    dict(type='DumpResults', out_file_path='dumped/predictions.pkl'),
    dict(type='IoUMetric', prefix='val'),
    dict(type='IoUMetric', iou_metrics='mDice', prefix='dice'),
])
""")
    tools('test', 'several.py', CHECKPOINT, '--member', 'teacher', '--tta', '--work-dir', 'several',
          '--out', 'several_maps', '--show-dir', 'several_painted')  # fmt: skip
    metrics = metrics_in(tools.folder / 'several')
    assert metrics['teacher/val/mIoU'] == augmented['teacher/mIoU'] > 0
    assert metrics['teacher/dice/mDice'] > metrics['teacher/val/mIoU']
    assert not [name for name in metrics if name.startswith('student')]
    assert len(mmengine.load(tools.folder / 'dumped/teacher/predictions.pkl')) == IMAGES
    found, expected = (label_maps(tools.folder / folder / 'teacher')
                       for folder in ('several_maps', 'maps_tta'))  # fmt: skip
    assert found.keys() == expected.keys()
    assert len(found) == IMAGES
    assert all((found[name] == expected[name]).all() for name in found)
    assert any((tools.folder / 'several_painted/teacher').rglob('*.png'))


def test_label_maps_need_a_metric_that_writes_them():
    config = Config(dict(test_evaluator=dict(type='DumpResults', out_file_path='all.pkl')))
    with pytest.raises(ValueError, match='--out needs a metric in test_evaluator that writes'):
        write_label_maps(config, 'maps')


def test_missing_config(tools):
    line = mistake(tools.attempt('train', 'configs/none.py'))
    assert line == 'config not found: configs/none.py'


@pytest.mark.parametrize('name', ['test', 'export'])
def test_missing_checkpoint(name, tools):
    line = mistake(tools.attempt(name, DEMO, 'none.pth', '--cfg-options', *SMALL_PAIR))
    assert line == 'checkpoint not found: none.pth'
    assert not (tools.folder / 'work_dirs').exists()


def test_unknown_member(tools, resumed):
    line = mistake(tools.attempt('test', DEMO, CHECKPOINT, '--member', 'pupil'))
    assert line == "--member 'pupil': the members are student, teacher, or all"


def test_unknown_option_of_a_method(tools):
    options = [*SMALL_PAIR, 'model.methods.adm.consensus_wieght=2']
    line = mistake(tools.attempt('train', DEMO, '--cfg-options', *options))
    assert "method 'adm' (ADM)" in line
    assert "no option 'consensus_wieght'. Did you mean 'consensus_weight'?" in line
    assert not (tools.folder / 'work_dirs').exists()


def test_schedule_of_an_unknown_method(tools):
    options = [*SMALL_PAIR, 'default_hooks.schedule.schedules.amd.start=1']
    line = mistake(tools.attempt('train', DEMO, '--cfg-options', *options))
    assert line == "schedule for 'amd', but the methods are: dml, adm"
    assert not (tools.folder / 'work_dirs').exists()


def test_unknown_hook(tools):
    options = [*SMALL_PAIR, 'default_hooks.mine.type=MyHook']
    line = mistake(tools.attempt('train', DEMO, '--cfg-options', *options))
    assert line.startswith("default_hooks.mine: no hook is called 'MyHook'")
    assert not (tools.folder / 'work_dirs').exists()


def test_a_file_for_a_work_dir(tools):
    (tools.folder / 'taken').write_text('mine')
    for folder in ('taken', 'taken/below'):
        line = mistake(
            tools.attempt('train', DEMO, '--work-dir', folder, '--cfg-options', *SMALL_PAIR)
        )
        assert str(tools.folder / 'taken') in line or "'taken" in line
    assert (tools.folder / 'taken').read_text() == 'mine'


@pytest.mark.parametrize(
    ('out', 'said'),
    [
        ('copied/iter_6.pth', 'is what is exported from'),
        (f'copied/{DEMO.stem}.pth', 'is what is exported from'),
        ('copied', 'is a folder'),
        ('copied/', 'is a folder'),
    ],
)
def test_an_export_replaces_nothing_that_it_is_made_of(out, said, tools, resumed):
    copied = tools.folder / 'copied'
    copied.mkdir(exist_ok=True)
    for name in ('iter_6.pth', DEMO.name):
        shutil.copy(resumed / name, copied / name)
    before = hashes(copied)
    line = mistake(
        tools.attempt('export', f'copied/{DEMO.name}', 'copied/iter_6.pth', '--out', out)
    )
    assert said in line
    assert hashes(copied) == before


def test_an_export_is_called_as_it_was_said(tools, resumed):
    tools('export', WRITTEN, CHECKPOINT, '--out', 'named/student_v1.0')
    assert {path.name for path in (tools.folder / 'named').iterdir()} == {
        'student_v1.0.pth', 'student_v1.0.py'
    }  # fmt: skip


@pytest.mark.parametrize('hooks', ['default_hooks.preflight=None', 'default_hooks=None'])
def test_skipping_a_preflight_that_is_not_there(hooks, tools):
    flags = ['--skip-preflight', '--cfg-options', hooks]
    root = str(tools.folder / 'nowhere')
    # It got as far as the data.
    line = mistake(tools.attempt('train', DEMO, *flags, SYNTHETIC_CITY_ROOT=root))
    assert line.startswith('train data')


def test_missing_data_root(tools):
    root = str(tools.folder / 'nowhere')
    flags = ['--work-dir', 'without_data']
    line = mistake(tools.attempt('train', DEMO, *flags, SYNTHETIC_CITY_ROOT=root))
    assert line.startswith('train data (CityscapesDataset): ')
    assert f'{root} does not exist' in line
    assert 'leftImg8bit/{train,val}/CITY/NAME_leftImg8bit.png' in line
    assert 'SYNTHETIC_CITY_ROOT' in line
    assert not (tools.folder / 'without_data').exists()
