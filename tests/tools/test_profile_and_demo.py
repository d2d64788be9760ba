from pathlib import Path

import cv2
import pytest
import torch
from command_line import command
from factory import DEMO, ROOT, demo_config, save_segmentor, segmentor, shrink
from method_cases import METHODS
from mmengine.config import Config
from mmengine.registry import MODELS

import mmseg_adm
from mmseg_adm.benchmark.profiling import comparable_configs, profile_step, use_untrained_teachers
from mmseg_adm.benchmark.reading import read_plan
from mmseg_adm.benchmark.settings import SOME_CHECKPOINT
from mmseg_adm.commands import demo
from mmseg_adm.commands.flags import options_of
from mmseg_adm.commands.main import main
from mmseg_adm.config import read_config, resolve_config
from mmseg_adm.datasets import synthetic_city
from mmseg_adm.models import KnowledgeDistiller

CAMVID = {
    path.parent.name: path
    for path in ROOT.glob('configs/*/[!p]*_camvid-96x128.py')
    if not path.stem.startswith('adm-')
}
VARIANTS = ('adm-offline', 'adm-finetune', 'consensus-cwd')


def small(tmp_path, **options):
    return demo_config(tmp_path, tmp_path, model__data_preprocessor__size=(32, 48), **options)


def test_the_floor_runs_no_method_and_each_row_its_own(tmp_path, monkeypatch):
    ran = []
    loss = KnowledgeDistiller.loss

    def watched(model, inputs, data_samples):
        active = [name for name, method in model.methods.items() if method.strength > 0]
        ran.append(tuple(name for name in active if name != 'frozen_members'))
        return loss(model, inputs, data_samples)

    monkeypatch.setattr(KnowledgeDistiller, 'loss', watched)
    costs = profile_step(small(tmp_path), rounds=2, warmup=0)
    assert [cost.name for cost in costs] == ['floor', 'dml', 'adm', 'dml + adm']
    assert set(ran) == {(), ('dml',), ('adm',), ('dml', 'adm')}
    assert (costs[0].time_ratio, costs[0].memory_ratio) == (1, 1)
    projection = 8 * 16  # the feature maps of factory's narrow networks
    assert [cost.parameters for cost in costs] == [0, 0, projection, projection]
    assert costs[0].memory < costs[3].memory < 2 * costs[0].memory
    assert costs[3].memory_ratio == costs[3].memory / costs[0].memory


def test_steps_beside_take_their_turns(tmp_path):
    turns = []
    config = small(tmp_path)
    config.model.methods = dict(dml=dict(type='mmseg_adm.DML'))
    beside = {'other': lambda: turns.append(torch.ones(2**22))}
    *_, floor, dml, other = profile_step(config, rounds=3, warmup=1, beside=beside)
    assert (floor.name, dml.name, other.name) == ('floor', 'dml', 'other')
    assert len(turns) == 3 + 1 + 1  # rounds, warm-up, memory
    assert other.memory == 4 * 2**22
    assert other.parameters == 0


def test_the_layout_of_the_config_is_profiled(tmp_path, monkeypatch):
    config = small(tmp_path)
    config.model.methods = dict(dml=dict(type='mmseg_adm.DML'))
    config.custom_hooks = [dict(type='mmseg_adm.ChannelsLastHook')]
    with pytest.raises(ValueError, match='channels_last on a CPU: the 1x1 convolution'):
        profile_step(config, rounds=1, warmup=0)
    for member in config.model.members.values():
        shrink(member, 16)
    layouts = set()
    loss = KnowledgeDistiller.loss

    def watched(model, inputs, data_samples):
        weights = [each.weight for each in model.modules() if isinstance(each, torch.nn.Conv2d)]
        layouts.update(each.is_contiguous(memory_format=torch.channels_last) for each in weights)
        return loss(model, inputs, data_samples)

    monkeypatch.setattr(KnowledgeDistiller, 'loss', watched)
    profile_step(config, rounds=1, warmup=0)
    assert layouts == {True}


def test_a_bridge_is_no_part_of_the_floor(tmp_path):
    config = Config.fromfile(CAMVID['sokd'])
    for name, width in (('student', 4), ('teacher', 8)):
        shrink(config.model.members[name], width)
    config.merge_from_dict({
        'model.data_preprocessor.size': (32, 48), 'train_dataloader.batch_size': 2,
    })  # fmt: skip
    use_untrained_teachers(config, tmp_path)
    floor, sokd = profile_step(config, rounds=1, warmup=0)
    assert floor.parameters == 0
    bridge = MODELS.build(config.model).members['bridge']
    assert sokd.parameters == sum(parameter.numel() for parameter in bridge.parameters())
    assert sokd.memory > floor.memory


def test_an_average_is_no_part_of_the_floor(tmp_path, monkeypatch):
    config = small(tmp_path)
    config.model.members.mean_teacher = dict(type='mmseg_adm.EMATeacher')
    config.model.methods = dict(kd=dict(type='mmseg_adm.KD', teacher='mean_teacher'))
    averages = []
    loss = KnowledgeDistiller.loss

    def watched(model, inputs, data_samples):
        averages.append(list(model.averages))
        return loss(model, inputs, data_samples)

    monkeypatch.setattr(KnowledgeDistiller, 'loss', watched)
    floor, kd = profile_step(config, rounds=1, warmup=0)
    assert sorted(map(str, averages)) == ["['mean_teacher']"] * 2 + ['[]'] * 2
    assert floor.parameters == kd.parameters == 0
    assert kd.memory > floor.memory


def test_every_method_has_a_config_of_the_pair():
    found = comparable_configs('mmseg_adm::' + '/'.join(Path(CAMVID['adm']).parts[-2:]))
    assert {path.stem.split('_')[0] for path in found} == {*map(str.lower, METHODS), *VARIANTS}
    assert len(found) == len(METHODS) + len(VARIANTS)
    assert all(path.stem.endswith('2k_camvid-96x128') for path in found)


def test_a_network_alone_has_no_methods_to_compare():
    with pytest.raises(ValueError, match='trains a network alone'):
        comparable_configs(demo.STUDENT)


@pytest.mark.slow
def test_one_table_of_all_methods(tmp_path):
    result = command(
        'profile', CAMVID['dml'], '--all', '--rounds', 1, '--cfg-options',
        'train_dataloader.batch_size=2', 'model.data_preprocessor.size=(32,48)', cwd=tmp_path,
        COLUMNS='160',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [line.split('│')[1:-1] for line in result.stdout.splitlines() if line.startswith('│')]
    assert {row[0].strip() for row in rows} == {*map(str.lower, METHODS), *VARIANTS}
    for row in rows:
        assert all(float(cell) > 0 for cell in row[3:8])


def test_the_floor_runs_a_frozen_teacher_too(tmp_path, monkeypatch):
    teacher = segmentor(8, classes=19)
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', teacher)
    config = small(tmp_path)
    config.model.members.teacher = dict(teacher, frozen=True, checkpoint=checkpoint)
    config.model.members.student = segmentor(4, classes=19)
    config.model.methods = dict(kd=dict(type='mmseg_adm.KD'))
    runs = []

    def watched(self, inputs, data_samples=None, mode='tensor'):
        runs.append(mode)
        return forward(self, inputs, data_samples, mode)

    from mmseg.models import EncoderDecoder

    forward = EncoderDecoder.forward
    monkeypatch.setattr(EncoderDecoder, 'forward', watched)
    profile_step(config, rounds=1, warmup=0)
    assert runs.count('tensor') == runs.count('loss') == 4  # two variants, time and memory


def test_a_plain_config_is_refused(tmp_path):
    config = small(tmp_path)
    config.model = segmentor(4)
    with pytest.raises(ValueError, match='expected a KnowledgeDistiller, got a EncoderDecoder'):
        profile_step(config)


def test_the_tool_prints_one_table(tmp_path):
    options = ['model.data_preprocessor.size=(32,48)', 'train_dataloader.batch_size=2']
    done = command('profile', DEMO, '--rounds', '1', '--cfg-options', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ('floor', 'dml + adm', 's / step', 'memory', 'share of time', '2048'):
        assert word in done.stdout
    assert 'Init' not in done.stdout


@pytest.fixture
def small_demo(monkeypatch, tmp_path):
    """The demo in this process, on few and small pictures."""
    draw = synthetic_city.write_synthetic_city

    def draw_few(root, **options):
        return draw(root, **options | dict(num_train=4, num_val=3, size=(96, 128)))

    monkeypatch.setattr(synthetic_city, 'write_synthetic_city', draw_few)
    failing = []

    def run(*words):
        if words[0] in failing:
            return 3
        # A teacher of one iteration knows nothing.
        unseen = ['--skip-preflight'] if words[0] == 'train' else []
        return main([*map(str, words), *unseen])

    monkeypatch.setattr(demo, '_run', run)
    options = [
        'train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=2',
        'default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=1',
        *(f'{split}_dataloader.{option}' for split in ('train', 'val', 'test')
          for option in ('num_workers=0', 'persistent_workers=False')),
    ]  # fmt: skip
    return lambda: command('demo', '--cfg-options', *options, cwd=tmp_path), failing


TITLE = 'A student alone, the same student distilled, and their teacher'


def test_the_demo_ends_with_a_table_a_picture_and_a_student(small_demo, tmp_path):
    run, _ = small_demo
    done = run()
    assert done.returncode == 0, done.stderr
    table = done.stdout[done.stdout.index(TITLE) :]
    rows = [line.split('│')[1:-1] for line in table.splitlines() if line.startswith('│')]
    names, scores, lengths, _, sizes, flops, latencies = zip(*rows, strict=True)
    assert [name.strip() for name in names] == ['student alone', 'student distilled', 'teacher']
    assert all(0 < float(score) < 100 for score in scores)
    assert [int(length) for length in lengths] == [1, 1, 1]
    assert sizes[0] == sizes[1] and float(sizes[2].split()[0]) > 3 * float(sizes[0].split()[0])
    assert flops[0] == flops[1] and float(flops[2]) > 3 * float(flops[0])
    assert all(float(each) > 0 for each in latencies)
    folder = tmp_path / 'work_dirs' / 'demo'
    student = torch.load(folder / 'distilled' / 'export' / 'student.pth', weights_only=True)
    assert not any(key.startswith('members.') for key in student['state_dict'])
    picture = cv2.imread(str(folder / 'demo.png'))
    assert picture.shape[1] > 4 * picture.shape[0]  # five tiles beside each other


@pytest.mark.slow
def test_a_demo_that_is_begun_again_trains_what_is_left(small_demo, tmp_path):
    run, failing = small_demo
    assert run().returncode == 0
    folder = tmp_path / 'work_dirs' / 'demo'
    trained = {path: path.stat().st_mtime_ns for path in folder.glob('*/iter_1.pth')}
    assert run().returncode == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    # Whatever ends in between ends the demo, with its status.
    for command_name in ('export', 'train'):
        failing.append(command_name)
        done = run()
        assert done.returncode == 3
        assert TITLE not in done.stdout


def test_the_five_seeds_of_the_documents_are_of_the_demo():
    """What the plan trains is what the command trains."""
    (planned_pair,) = read_plan(ROOT / 'benchmarks' / 'demo.py').pairs
    rows = {row.name: row for row in planned_pair.rows}
    assert rows['distilled'].source == (
        f'--student={demo.STUDENT}', f'--teacher={demo.TEACHER}', f'--method={demo.METHOD}',
    )  # fmt: skip
    trained = {
        'teacher': read_config(demo.TEACHER),
        'student': read_config(demo.STUDENT),
        'distilled': mmseg_adm.pair(demo.STUDENT, demo.TEACHER, demo.METHOD, SOME_CHECKPOINT),
    }
    for name, config in trained.items():
        own = 'alone' if name == 'student' else name
        config = resolve_config(config, options_of(demo.options_for(own)))
        planned = rows[name].resolved()
        for key in ('model', 'optim_wrapper', 'param_scheduler', 'randomness'):
            assert config[key] == planned[key], (name, key)
        assert config.train_cfg.max_iters == planned.train_cfg.max_iters
        for loader in (config.train_dataloader, planned.train_dataloader):
            loader.pop('worker_init_fn', None)
            loader.dataset.pop('cache', None)
        assert config.train_dataloader == planned.train_dataloader
