import sys

import pytest
import torch
from factory import ROOT, quick_in
from mmengine.config import Config
from mmengine.registry import MODELS
from plans import PAIR, SETTING, TRAINING, shipped, tiny_plan, write_plan

from mmseg_adm.benchmark import read_plan
from mmseg_adm.benchmark.initial import initial_weights
from mmseg_adm.config import check_config

DATASET = 'train_dataloader.dataset.dataset'
# Beside them lies a backbone.
PLANS = sorted(path for path in ROOT.glob('benchmarks/*.py') if 'pairs = ' in path.read_text())


@pytest.mark.parametrize('name', quick_in([path.stem for path in PLANS], 'camvid_regime'))
def test_shipped_plans_are_read(name):
    plan = read_plan(ROOT / 'benchmarks' / f'{name}.py')
    assert plan.name == name
    assert len({cell.key for cell in plan.cells}) == len(plan.cells)
    for pair in plan.pairs:  # Two pairs may share a network.
        assert len({row.settings for row in pair.rows}) == len(pair.rows)
    for row in {row.settings: row for row in plan.rows}.values():
        check_config(row.resolved())
    # What a row calls ADM is what the class and its configs call so.
    for row in plan.rows:
        if row.name in ('adm', 'adm-finetune'):
            assert row.resolved().model.methods.adm == dict(type='mmseg_adm.ADM')


def test_cells_come_in_the_order_in_which_they_are_needed(tmp_path):
    plan = tiny_plan(tmp_path, 'kd', 'dml', seeds=(3, 5))
    names = ['student', 'teacher', 'kd', 'dml']
    assert [cell.key for cell in plan.cells] == [f'tiny/{n}/{s}' for s in (3, 5) for n in names]
    assert [cell.row.name for cell in plan.cells if cell.row.teachers] == ['kd', 'kd']
    assert all(cell.options['randomness.seed'] == cell.seed for cell in plan.cells)
    assert plan.cells[0].row.resolved().train_cfg.max_iters == 2


def test_a_trial_runs_with_some_of_the_seeds(tmp_path):
    config = shipped('kd')['kd']
    methods = dict(trial=dict(config=config, seeds=(3,)), kd=config)
    plan = read_plan(write_plan(tmp_path, methods, (3, 5)))
    keys = ['student/3', 'teacher/3', 'trial/3', 'kd/3', 'student/5', 'teacher/5', 'kd/5']
    assert [cell.key for cell in plan.cells] == [f'tiny/{key}' for key in keys]
    methods['trial']['seeds'] = (3, 4)
    with pytest.raises(ValueError, match=r"cell 'tiny/trial': the plan has no seeds \[4\]"):
        read_plan(write_plan(tmp_path, methods, (3, 5)))


@pytest.mark.parametrize(
    ('entry', 'message'),
    [
        (dict(trained_teachers=True), "cell 'tiny/dml' has no trained_teachers"),
        (dict(config=None), "cell 'tiny/dml' names no config"),
        (dict(seeds=()), r"cell 'tiny/dml': seeds must be a list of some of \(0, 1\), got \(\)"),
        (dict(seeds=0), "cell 'tiny/dml': seeds must be a list of some of .*, got 0"),
    ],
)
def test_what_an_entry_must_not_say(entry, message, tmp_path):
    entry = dict(config=shipped('dml')['dml']) | entry
    entry = {key: value for key, value in entry.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        read_plan(write_plan(tmp_path, dict(dml=entry), (0, 1)))


def test_a_frozen_teacher_does_not_go_on(tmp_path):
    methods = dict(kd=dict(config=shipped('kd')['kd'], trained_teacher=True))
    with pytest.raises(ValueError, match='trained_teacher is for a teacher that trains'):
        read_plan(write_plan(tmp_path, methods, (0,)))


def test_a_network_alone_has_no_teacher(tmp_path):
    path = write_plan(tmp_path, shipped('dml'), (0,))
    with path.open('a') as file:
        file.write('pairs["tiny"]["student"] = dict(config=pairs["tiny"]["student"], seeds=(0,))')
    with pytest.raises(ValueError, match="cell 'tiny/student' has no seeds"):
        read_plan(path)


@pytest.mark.parametrize('method', ['adm-finetune', 'configs/adm/adm-finetune_{}_{}'])
def test_a_warm_config_starts_from_the_trained_teacher(method, tmp_path):
    plan = read_plan(write_plan(tmp_path, dict(warm=method.format(PAIR, SETTING)), (0,)))
    assert plan.cells[-1].row.teachers == ('teacher',)
    assert set(initial_weights(plan, plan.cells[-1], tmp_path / 'initial')) == {
        'model.members.student.checkpoint'
    }


def test_a_pair_runs_with_some_of_the_seeds(tmp_path):
    path = write_plan(tmp_path, shipped('kd'), (3, 5))
    with path.open('a') as file:
        file.write('pairs["small"] = dict(pairs["tiny"], seeds=(5,))\n')
    keys = [cell.key for cell in read_plan(path).cells]
    assert [key for key in keys if key.startswith('small')] == [
        'small/student/5', 'small/teacher/5', 'small/kd/5',
    ]  # fmt: skip
    assert len(keys) == 9


def test_a_teacher_in_training_may_start_from_the_trained_one(tmp_path):
    config = shipped('dml')['dml']
    methods = dict(dml=config, warm=dict(config=config, trained_teacher=True))
    plan = read_plan(write_plan(tmp_path, methods, (0,)))
    *_, plain, warm = plan.cells
    assert plain.row.resolved().model == warm.row.resolved().model
    assert (plain.row.teachers, warm.row.teachers) == ((), ('teacher',))
    assert plain.settings != warm.settings
    methods['warm'] = dict(
        config=config,
        trained_teacher=True,
        cfg_options={'model.members.teacher.checkpoint': 'elsewhere.pth'},
    )
    assert read_plan(write_plan(tmp_path, methods, (0,))).cells[-1].settings == warm.settings
    checkpoints = {f'model.members.{name}.checkpoint' for name in ('student', 'teacher')}
    assert set(initial_weights(plan, plain, tmp_path / 'initial')) == checkpoints
    assert set(initial_weights(plan, warm, tmp_path / 'initial')) == {
        'model.members.student.checkpoint'
    }


def test_a_method_by_name_pairs_the_networks(tmp_path):
    plan = read_plan(write_plan(tmp_path, {'cwd': 'cwd', 'own': dict(config='dml')}, (0,)))
    cells = {cell.row.name: cell for cell in plan.cells}
    student, teacher, method = cells['cwd'].row.source
    assert student == f'--student={cells["student"].row.source[0]}'
    assert teacher == f'--teacher={cells["teacher"].row.source[0]}'
    assert method == '--method=cwd'
    assert cells['cwd'].row.teachers == ('teacher',)
    assert not cells['own'].row.teachers
    config = cells['own'].row.resolved()
    assert set(config.model.methods) == {'dml'}
    assert config.train_cfg.max_iters == 2
    alone = cells['student'].row.resolved().model
    assert config.model.members.student.backbone == alone.backbone
    assert config.model.members.student.decode_head == alone.decode_head


def test_what_a_plan_changes_about_a_network_holds_in_its_pairs(tmp_path):
    path = write_plan(tmp_path, {'kd': 'kd'}, teacher={'model.decode_head.channels': 24})
    teacher, kd = read_plan(path).rows[1:]
    assert teacher.resolved().model.decode_head.channels == 24
    assert kd.resolved().model.members.teacher.decode_head.channels == 24


def test_configs_lie_beside_the_plan_or_above_it_or_have_names(tmp_path):
    own = tmp_path / 'study' / 'plans'
    own.mkdir(parents=True)
    network = f'pspnet_r18-w16-d8_{SETTING}'
    for name, folder in (('beside.py', own), ('above.py', tmp_path)):
        (folder / name).write_text(f"_base_ = 'mmseg_adm::pspnet/{network}'\n")
    plan = own / 'own.py'
    plan.write_text(
        "seeds = (0,)\npairs = dict(a=dict(student='beside.py', teacher='above.py', methods=dict("
        f"kd=dict(config='mmseg_adm::kd/kd_{PAIR}_{SETTING}'), dml='dml')))\n"
    )
    sources = {cell.row.name: cell.row.source for cell in read_plan(plan).cells}
    assert sources == {
        'student': (f'{own}/beside.py',),
        'teacher': (f'{tmp_path}/above.py',),
        'kd': (f'mmseg_adm::kd/kd_{PAIR}_{SETTING}',),
        'dml': (f'--student={own}/beside.py', f'--teacher={tmp_path}/above.py', '--method=dml'),
    }


def test_a_backbone_beside_the_plan_is_found(tmp_path):
    path = write_plan(tmp_path, {'own': 'dml'})
    (path.parent / 'backbone_beside.py').write_text(
        'from mmseg.models.backbones import ResNetV1c\nfrom mmseg.registry import MODELS\n\n'
        '@MODELS.register_module()\nclass Beside(ResNetV1c):\n    """One of mine."""\n'
    )
    (path.parent / 'mine.py').write_text(
        f"_base_ = 'mmseg_adm::pspnet/pspnet_r18-w16-d8_{SETTING}'\n"
        "custom_imports = dict(imports=['backbone_beside'])\n"
        "model = dict(backbone=dict(type='Beside'))\n"
    )
    with path.open('a') as file:
        file.write("pairs['tiny'].update(student='mine.py', budget='own')\n")
    before = list(sys.path)
    try:
        plan = read_plan(path)
        assert sys.path == before
        assert {row.name: row.imports for row in plan.rows} == {
            'student': ('backbone_beside',), 'teacher': (), 'own': ('backbone_beside',),
        }  # fmt: skip
        initial_weights(plan, plan.cells[0], tmp_path / 'initial')
    finally:
        sys.modules.pop('backbone_beside', None)
        MODELS.children['mmseg'].module_dict.pop('Beside', None)


def test_members_may_be_named_or_dropped(tmp_path):
    first = tiny_plan(tmp_path, 'dml')
    named = dict(config=f'configs/dml/dml_{PAIR}_{SETTING}', cfg_options={
        'model.members': dict(
            _delete_=True,
            student=str(ROOT / f'configs/pspnet/pspnet_r18-w16-d8_{SETTING}'),
            teacher=dict(config=str(ROOT / f'configs/pspnet/pspnet_r18-w32-d8_{SETTING}')),
            peer=None,
        ),
    })  # fmt: skip
    plan = read_plan(write_plan(tmp_path, {'dml': named}, (0, 1, 2)))
    cell = plan.cells[2]
    config = cell.row.resolved()
    assert config.model.members == first.cells[2].row.resolved().model.members
    assert not cell.row.teachers
    assert cell.settings == first.cells[2].settings
    assert set(initial_weights(plan, cell, tmp_path / 'initial')) == {
        'model.members.student.checkpoint', 'model.members.teacher.checkpoint',
    }  # fmt: skip


def test_settings_know_what_matters(tmp_path, monkeypatch):
    first = tiny_plan(tmp_path, 'kd').cells
    monkeypatch.setenv('SYNTHETIC_CITY_ROOT', '/elsewhere')
    monkeypatch.setenv('TEACHER_CHECKPOINT', '/elsewhere/teacher.pth')
    workers = {'train_dataloader.num_workers': 1}
    options = [TRAINING, TRAINING | workers, TRAINING | {'train_cfg.max_iters': 3}]
    again, moved, longer = (
        read_plan(write_plan(tmp_path, shipped('kd'), (0, 1, 2), each)).cells for each in options
    )
    settings = [[cell.settings for cell in cells] for cells in (first, again, moved, longer)]
    assert settings[0] == settings[1] == settings[2]
    assert not set(settings[0]) & set(settings[3])


def test_settings_know_which_images_and_not_how_they_are_read(tmp_path):
    def settings(**more):
        plan = read_plan(write_plan(tmp_path, shipped('dml'), (0,), TRAINING | more))
        return [cell.settings for cell in plan.cells]

    def named(folder, text):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / 'names.txt'
        path.write_text(text)
        return {'train_dataloader.dataset.dataset.ann_file': str(path)}

    plain = settings()
    assert settings(**{'train_dataloader.dataset.cache': True}) == plain
    assert settings(**{'default_hooks.preflight': None}) == plain
    some = settings(**named('here', 'a\nb\n'))
    assert not set(some) & set(plain)
    assert settings(**named('there', 'a\nb\n')) == some
    assert not set(settings(**named('here', 'a\n'))) & set(some)


def test_settings_know_the_number_of_processes(tmp_path):
    path = write_plan(tmp_path, shipped('dml'))
    plans = [read_plan(path), read_plan(path, 1), read_plan(path, 2), read_plan(path, 4)]
    assert [plan.processes for plan in plans] == [1, 1, 2, 4]
    one, again, two, four = ({cell.settings for cell in plan.cells} for plan in plans)
    assert one == again
    assert not one & two
    assert not two & four
    assert not one & four


def test_settings_know_how_the_teacher_was_trained(tmp_path):
    methods = shipped('kd', 'dml')
    methods['adm-finetune'] = dict(config=methods['dml'], trained_teacher=True)
    plans = [
        read_plan(write_plan(tmp_path, methods, teacher={'train_cfg.max_iters': count}))
        for count in (2, 3)
    ]
    first, longer = ({cell.row.name: cell.settings for cell in plan.cells} for plan in plans)
    changed = [name for name in first if first[name] != longer[name]]
    assert changed == ['teacher', 'kd', 'adm-finetune']


def test_settings_know_what_a_training_starts_from(tmp_path):
    plain, none, some, other = (
        settings_with(tmp_path, TRAINING | more)
        for more in ({}, {'load_from': None}, {'load_from': 'a.pth'}, {'load_from': 'b.pth'})
    )
    assert plain == none
    assert len({*plain, *some, *other}) == len(plain) * 3


def test_lists_of_images_lie_below_the_data_root(tmp_path):
    def settings(folder, text):
        root = tmp_path / folder
        root.mkdir(exist_ok=True)
        if text:
            (root / 'names.txt').write_text(text)
        options = {f'{DATASET}.data_root': str(root), f'{DATASET}.ann_file': 'names.txt'}
        return settings_with(tmp_path, TRAINING | options)

    here = settings('here', 'a\nb\n')
    assert settings('there', 'a\nb\n') == here
    assert not set(settings('here', 'a\n')) & set(here)
    # As on a machine that only reports.
    without = settings('nowhere', '')
    assert settings('nowhere at all', '') == without
    assert not set(without) & set(here)


@pytest.mark.parametrize('wrapper', ['RepeatDataset', 'ConcatDataset'])
def test_wrapped_data_lie_anywhere_too(wrapper, tmp_path):
    def settings(folder):
        root = tmp_path / folder
        root.mkdir()
        (root / 'names.txt').write_text('a\n')
        data = dict(type='CityscapesDataset', data_root=str(root), ann_file='names.txt')
        if wrapper == 'ConcatDataset':
            wrapped = {f'{DATASET}.datasets': [data, dict(data)], f'{DATASET}.type': wrapper}
        else:
            wrapped = {f'{DATASET}.dataset': data, f'{DATASET}.type': wrapper}
        return settings_with(tmp_path, TRAINING | wrapped)

    assert settings('here') == settings('there')


def test_a_config_without_default_hooks_has_settings(tmp_path):
    plan = Config(dict(
        model=dict(type='EncoderDecoder'),
        train_cfg=dict(max_iters=2),
        train_dataloader=dict(dataset=dict(type='CityscapesDataset')),
        val_dataloader=dict(dataset=dict(type='CityscapesDataset')),
    ))  # fmt: skip
    path = tmp_path / 'networks' / 'plain.py'
    path.parent.mkdir()
    plan.dump(path)
    written = tmp_path / 'plans' / 'plain.py'
    written.parent.mkdir()
    entry = 'networks/plain.py'
    written.write_text(f"seeds = (0,)\npairs = dict(a=dict(student='{entry}', teacher='{entry}'))")
    assert len(read_plan(written).cells) == 2


def settings_with(folder, options):
    plan = read_plan(write_plan(folder, shipped('dml'), (0,), options))
    return [cell.settings for cell in plan.cells]


def test_all_cells_of_a_seed_start_from_the_same_weights(tmp_path):
    plan = tiny_plan(tmp_path, 'kd', 'dml', seeds=(0, 1))
    folder = tmp_path / 'initial'
    options = {cell.key: initial_weights(plan, cell, folder) for cell in plan.cells}
    student, teacher = (
        f'{folder}/{cell.row.name}_0_{cell.settings}.pth' for cell in plan.cells[:2]
    )
    assert options['tiny/student/0']['model.init_cfg.checkpoint'] == student
    assert options['tiny/kd/0'] == {'model.members.student.checkpoint': student}
    assert options['tiny/dml/0'] == {
        'model.members.student.checkpoint': student,
        'model.members.teacher.checkpoint': teacher,
    }
    weights = [
        torch.load(next(folder.glob(f'student_{seed}_*.pth')), weights_only=True) for seed in (0, 1)
    ]
    key = 'decode_head.conv_seg.weight'
    assert not torch.equal(*(each['state_dict'][key] for each in weights))


@pytest.mark.parametrize(
    ('text', 'error', 'message'),
    [
        ('seeds = ()', ValueError, 'names no seeds'),
        ('seeds = (0,)', ValueError, 'names no pairs'),
        (
            "seeds = (0,)\npairs = dict(a=dict(student='x.py', teacher='x.py', peers=1))",
            ValueError, "pair 'a' has no peers",
        ),
        (
            "seeds = (0,)\npairs = dict(a=dict(student='x.py'))",
            ValueError, "pair 'a' names no teacher",
        ),
        (
            "seeds = (0,)\npairs = dict(a=dict(student='plan.py', teacher='plan.py', "
            "methods=dict(b='cwdd')))\nmodel = dict(type='X')\ntrain_cfg = dict(max_iters=1)\n"
            'train_dataloader = val_dataloader = dict(dataset={})',
            ValueError, "cell 'a/b': no method is called 'cwdd': adm, .*cwd, ",
        ),
        (
            "seeds = (0,)\npairs = dict(a=dict(student='plan.py', teacher='plan.py'))\n"
            "model = dict(type='X')\ntrain_cfg = dict(max_epochs=1)",
            ValueError, "cell 'a/student': .* trains by epochs",
        ),
        ('seeds = (0,)\npairs = dict(a=3)', ValueError, "pair 'a' must be a dict of"),
        (
            "seeds = (0,)\npairs = dict(a=dict(student='x.py', teacher='x.py'))",
            FileNotFoundError, r"cell 'a/student': config not found: x\.py, sought in .* above it",
        ),
    ],
)  # fmt: skip
def test_wrong_plans_are_refused(text, error, message, tmp_path):
    path = tmp_path / 'plan.py'
    path.write_text(text)
    with pytest.raises(error, match=message) as refused:
        read_plan(path)
    assert '\n' not in str(refused.value)


def test_a_plan_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match='plan not found'):
        read_plan(tmp_path / 'none.py')


def test_rows_of_a_pair_have_the_length_of_its_student(tmp_path):
    path = write_plan(tmp_path, dict(kd='kd', longer=dict(config='kd', iterations=6)))
    text = path.read_text().replace("student='", "student=dict(iterations=4, config='")
    path.write_text(text.replace(f"w16-d8_{SETTING}',", f"w16-d8_{SETTING}'),"))
    rows = {row.name: row for row in read_plan(path).rows}
    assert {name: row.iterations for name, row in rows.items()} == {
        'student': 4, 'teacher': 2, 'kd': 4, 'longer': 6,
    }  # fmt: skip
    schedules = rows['kd'].resolved().param_scheduler
    assert [each.end for each in schedules] == [4]


@pytest.mark.parametrize('key', ['optim_wrapper.optimizer.lr', 'model.data_preprocessor.size'])
def test_what_would_not_reach_a_pair_is_refused(key, tmp_path):
    options = {key: (32, 48) if key.endswith('size') else 0.1}
    plan = write_plan(tmp_path, dict(kd='kd'), teacher=options)
    with pytest.raises(ValueError, match=f"cell 'tiny/kd' would not have {key} of its teacher"):
        read_plan(plan)
    # Where no row pairs the two it may differ.
    assert len(read_plan(write_plan(tmp_path, shipped('dml'), teacher=options)).rows) == 3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'val_dataloader': None}, 'has no val_dataloader'),
        ({'val_evaluator.prefix': 'val'}, "val_evaluator has prefix='val': a table is of 'mIoU'"),
    ],
)
def test_a_row_that_no_table_could_show_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=f"cell 'tiny/student': .*{message}"):
        read_plan(write_plan(tmp_path, {}, options={**TRAINING, **options}))


@pytest.mark.parametrize('key', ['budget', 'teacher_is_given', 'cfg_option'])
def test_a_name_in_the_wrong_place_is_refused(key, tmp_path):
    path = write_plan(tmp_path, {})
    path.write_text(path.read_text() + f'{key} = dict()\n')
    with pytest.raises(ValueError, match=f'{key} (belongs into a pair|is called cfg_options)'):
        read_plan(path)


@pytest.mark.parametrize(
    'options',
    [{'compile': True}, {'val_cfg.fp16': True}, {'sync_bn': 'torch'},
     {'auto_scale_lr': dict(enable=True, base_batch_size=16)}],
    ids=lambda options: next(iter(options)),
)  # fmt: skip
def test_settings_know_what_few_configs_have(options, tmp_path):
    plain = read_plan(write_plan(tmp_path, {}))
    other = read_plan(write_plan(tmp_path, {}, options={**TRAINING, **options}))
    assert plain.rows[0].settings != other.rows[0].settings


def test_what_is_off_is_no_setting(tmp_path):
    off = {'compile': False, 'auto_scale_lr': dict(enable=False, base_batch_size=16)}
    plain = read_plan(write_plan(tmp_path, {}))
    other = read_plan(write_plan(tmp_path, {}, options={**TRAINING, **off}))
    assert plain.rows[0].settings == other.rows[0].settings
