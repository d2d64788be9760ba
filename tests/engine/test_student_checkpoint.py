from pathlib import Path

import pytest
import torch
from factory import ROOT, demo_config
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import METRICS
from mmseg.registry import MODELS as MMSEG_MODELS

from mmseg_adm.checkpoint import read_checkpoint, safe_loading
from mmseg_adm.export import plain_config

pytestmark = pytest.mark.core

PLAIN = ROOT / 'configs/pspnet/pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'


@METRICS.register_module(force=True)
class ScriptedMetric(BaseMetric):
    """The best in the second of three validations, whatever is predicted."""

    def __init__(self, prefix=None):
        super().__init__(prefix=prefix)
        self.scores = iter((20.0, 30.0, 10.0))

    def process(self, data_batch, data_samples):
        self.results += [0] * len(data_samples)

    def compute_metrics(self, results):
        return {'mIoU': next(self.scores)}


class Listings(Hook):
    """Notes the files after each validation."""

    priority = 'LOWEST'

    def __init__(self):
        self.files = []

    def after_val_epoch(self, runner, metrics=None):
        folder = Path(runner.work_dir)
        self.files.append({path.name for pattern in ('*.pth', 'student*')
                           for path in folder.glob(pattern)})  # fmt: skip


def scripted_config(city, work_dir, **options):
    options = {
        'train_cfg__val_interval': 1,
        'default_hooks__checkpoint__interval': 1,
        'default_hooks__checkpoint__max_keep_ckpts': 1,
        'val_evaluator': dict(type='ScriptedMetric', _delete_=True),
    } | options
    config = demo_config(city, work_dir, iters=3, **options)
    config.default_hooks.pop('pictures')
    return config


def beside(name):
    return {f'{name}.pth', f'student_{name}.pth', f'student_{name}.py'}


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    """A runner after three iterations, each with a checkpoint and a validation."""
    work_dir = tmp_path_factory.mktemp('trained')
    runner = Runner.from_cfg(scripted_config(city, work_dir))
    listings = Listings()
    runner.register_hook(listings)
    runner.train()
    return runner, work_dir, listings.files


def test_a_student_lies_beside_the_last_and_the_best_checkpoint(trained):
    first, second, third = trained[2]
    assert first == beside('iter_1') | beside('best_student_mIoU_iter_1')
    assert second == beside('iter_2') | beside('best_student_mIoU_iter_2')
    assert third == beside('iter_3') | beside('best_student_mIoU_iter_2')


@pytest.mark.parametrize('name', ['iter_3', 'best_student_mIoU_iter_2'])
def test_the_weights_are_those_of_the_checkpoint_under_plain_names(trained, name):
    _, work_dir, _ = trained
    saved = torch.load(work_dir / f'student_{name}.pth', weights_only=True)
    weights = saved['state_dict']
    whole = read_checkpoint(work_dir / f'{name}.pth')['state_dict']
    config = Config.fromfile(work_dir / f'student_{name}.py')
    assert list(weights) == list(MMSEG_MODELS.build(config.model).state_dict())
    for key, value in weights.items():
        assert torch.equal(value, whole[f'members.student.{key}']), key


def test_the_last_students_weights_are_the_trained_ones(trained):
    runner, work_dir, _ = trained
    weights = torch.load(work_dir / 'student_iter_3.pth', weights_only=True)['state_dict']
    for key, value in runner.model.members['student'].state_dict().items():
        assert torch.equal(value, weights[key]), key


def test_classes_and_palette_are_plain_types(trained):
    _, work_dir, _ = trained
    saved = torch.load(work_dir / 'student_iter_3.pth', weights_only=True)
    assert saved.keys() == {'state_dict', 'meta'}
    meta = saved['meta']['dataset_meta']
    assert type(meta) is dict
    assert type(meta['classes']) is list
    assert type(meta['palette']) is list
    assert meta['classes'][:2] == ['road', 'sidewalk']
    assert {type(name) for name in meta['classes']} == {str}
    assert meta['palette'][0] == [128, 64, 128]
    assert {type(value) for color in meta['palette'] for value in color} == {int}


def test_with_averaged_weights_the_student_is_the_average(city, tmp_path):
    config = scripted_config(
        city, tmp_path, custom_hooks=[dict(type='EMAHook', momentum=0.3)],
        train_cfg__val_begin=1000,
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    runner.train()
    weights = torch.load(tmp_path / 'student_iter_3.pth', weights_only=True)['state_dict']
    average = next(hook.ema_model for hook in runner.hooks if hasattr(hook, 'ema_model'))
    whole = read_checkpoint(tmp_path / 'iter_3.pth')['state_dict']
    for key, value in average.module.members['student'].state_dict().items():
        assert torch.equal(value, weights[key]), key
        assert torch.equal(value, whole[f'members.student.{key}']), key
    key = 'decode_head.conv_seg.weight'
    assert not torch.equal(runner.model.members['student'].state_dict()[key], weights[key])


def test_the_files_carry_the_name_of_the_deployed_member(city, tmp_path):
    config = scripted_config(
        city, tmp_path, model__student='teacher', train_cfg__max_iters=1,
        default_hooks__checkpoint__save_best='teacher/mIoU',
    )  # fmt: skip
    runner = Runner.from_cfg(config)
    runner.train()
    weights = torch.load(tmp_path / 'teacher_iter_1.pth', weights_only=True)['state_dict']
    expected = runner.model.members['teacher'].state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert not list(tmp_path.glob('student_*'))


@pytest.mark.parametrize('elsewhere', [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_resumed_run_removes_what_the_run_before_exported(elsewhere, city, tmp_path):
    work_dir, options = tmp_path / 'run', dict(train_cfg__val_begin=1000)
    folder = tmp_path / 'disk' / 'run' if elsewhere else work_dir
    if elsewhere:
        # MMEngine saves below it, in a folder of the work dir's name.
        options['default_hooks__checkpoint__out_dir'] = str(folder.parent)
    Runner.from_cfg(scripted_config(city, work_dir, train_cfg__max_iters=1, **options)).train()
    assert {path.name for path in folder.glob('student*')} < beside('iter_1')
    with safe_loading():
        Runner.from_cfg(scripted_config(city, work_dir, resume=True, **options)).train()
    assert {path.name for path in folder.glob('student*')} < beside('iter_3')


def test_there_may_be_several_best_checkpoints(city, tmp_path):
    config = scripted_config(
        city, tmp_path, train_cfg__max_iters=1,
        default_hooks__checkpoint__save_best=['student/mIoU', 'teacher/mIoU'],
    )  # fmt: skip
    Runner.from_cfg(config).train()
    found = {path.name for path in tmp_path.glob('student_*.pth')}
    best = {f'student_best_{member}_mIoU_iter_1.pth' for member in ('student', 'teacher')}
    assert found == best | {'student_iter_1.pth'}


def test_files_that_the_hook_did_not_write_are_left_alone(city, tmp_path):
    mine = tmp_path / 'student_for_the_paper.pth'
    mine.write_bytes(b'mine')
    mine.with_suffix('.py').write_text('mine')
    config = scripted_config(
        city, tmp_path, train_cfg__max_iters=1, train_cfg__val_begin=1000
    )  # fmt: skip
    Runner.from_cfg(config).train()
    assert mine.is_file()
    assert mine.with_suffix('.py').is_file()


def test_a_plain_segmentor_is_refused(city, tmp_path):
    hook = dict(type='mmseg_adm.StudentCheckpointHook')
    config = demo_config(city, tmp_path, config=PLAIN, custom_hooks=[hook])
    with pytest.raises(ValueError, match='StudentCheckpointHook needs a KnowledgeDistiller'):
        Runner.from_cfg(config).train()


def test_without_any_evaluation_data_the_student_is_a_network_alone(city, tmp_path):
    config = scripted_config(city, tmp_path, train_cfg__max_iters=1)
    nothing = dict.fromkeys(('cfg', 'dataloader', 'evaluator'))
    for stage in ('val', 'test'):
        config.merge_from_dict({f'{stage}_{key}': value for key, value in nothing.items()})
    runner = Runner.from_cfg(config)
    runner.train()
    (log,) = tmp_path.glob('*/*.log')
    assert 'WARNING - The exported student will not say how its images are prep' in log.read_text()
    student = Config.fromfile(tmp_path / 'student_iter_1.py')
    assert not {'test_pipeline', 'test_dataloader'} & student.keys()
    network = MMSEG_MODELS.build(student.model)
    network.load_state_dict(read_checkpoint(tmp_path / 'student_iter_1.pth')['state_dict'])
    trained = runner.model.members['student'].state_dict()
    assert all(torch.equal(trained[key], value) for key, value in network.state_dict().items())


def test_without_a_pipeline_to_be_found_there_is_none_in_the_config(city, tmp_path):
    config = scripted_config(city, tmp_path)
    own = dict(type='DataSetOfMyOwn', root='somewhere')
    for dataset in (own, dict(type='ConcatDataset', datasets=[own])):
        config.test_dataloader.dataset = dataset
        plain = plain_config(config)
        assert plain.model.type == 'EncoderDecoder'
        assert 'test_pipeline' not in plain
