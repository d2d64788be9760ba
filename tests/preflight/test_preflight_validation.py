"""What a run would stumble over at its first validation or checkpoint, said before it starts."""

import pytest
import torch
from factory import SIZE
from mmengine.dataset import BaseDataset
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from mmseg_adm.engine.hooks import consensus_picture
from mmseg_adm.preflight import Report, inspect_config
from mmseg_adm.preflight.teachers import IMAGES, SEARCHED, check_teachers, telling_samples
from mmseg_adm.preflight.validation import check_validation

pytestmark = pytest.mark.core


@pytest.fixture
def preflight_config(preflight_config):
    """With the hook that draws."""
    preflight_config.default_hooks.pictures = dict(type='mmseg_adm.ConsensusPictureHook')
    return preflight_config


def failures(config):
    return {check.name: check.text for check in inspect_config(config).failed}


def warnings(config):
    report = inspect_config(config)
    assert report.failed == []
    return {check.name: check.text for check in report.checks if check.status == 'warning'}


# ------------------------------------------------------------------------- the validation


def test_labels_that_are_loaded_before_images_are_resized(preflight_config):
    load, resize, labels, pack = preflight_config.val_dataloader.dataset.pipeline
    resize.scale = (64, 32)
    preflight_config.val_dataloader.dataset.pipeline = [load, labels, resize, pack]
    (text,) = failures(preflight_config).values()
    assert "its labels 32x64, its prediction 48x96 pixels ('student'). mmseg scores at" in text
    assert 'place LoadAnnotations after Resize in the pipeline of val_dataloader' in text


def test_validation_images_without_labels(preflight_config):
    pipeline = preflight_config.val_dataloader.dataset.pipeline
    (load,) = (each for each in pipeline if each.type == 'LoadAnnotations')
    pipeline.remove(load)
    assert 'come without labels: add dict(type=' in failures(preflight_config)['validation']
    preflight_config.val_evaluator = dict(type='IoUMetric', format_only=True, output_dir='there')
    assert 'validation' not in failures(preflight_config)


def test_a_network_that_cannot_predict(preflight_config):
    preflight_config.model.members.teacher.test_cfg = dict(mode='slide')
    assert 'validation' in failures(preflight_config)


def test_a_batch_of_validation_images_of_different_sizes(inspect, preflight_config):
    class Sizes(BaseDataset):
        def __init__(self):
            pass

        def __len__(self):
            return 2

        def __getitem__(self, index):
            size = (32, 48 + 16 * index)
            meta = dict(ori_shape=size, img_shape=size)
            labels = PixelData(data=torch.zeros(1, *size, dtype=torch.int64))
            sample = SegDataSample(gt_sem_seg=labels, metainfo=meta)
            return dict(inputs=torch.zeros(3, *size, dtype=torch.uint8), data_samples=sample)

    model = inspect_model(preflight_config)
    for size, status in ((1, 'ok'), (2, 'failed')):
        preflight_config.val_dataloader.batch_size = size
        report = Report()
        check_validation(preflight_config, model, Sizes(), [], report)
        assert [check.status for check in report.checks] == [status]


def inspect_model(config):
    from factory import build

    return build(config.model)


def test_pictures_that_cannot_be_drawn_are_a_warning(preflight_config, monkeypatch):
    def fail(*_, **__):
        raise TypeError('no picture')

    monkeypatch.setattr(consensus_picture, 'draw_panel', fail)
    assert warnings(preflight_config) == {'ConsensusPictureHook': 'TypeError: no picture'}


# ------------------------------------------------------------------ what the config names


@pytest.mark.parametrize(
    ('options', 'name', 'text'),
    [
        (
            {'default_hooks.checkpoint.save_best': 'student/mIou'},
            'config',
            "default_hooks.checkpoint.save_best is 'student/mIou', which no validation has",
        ),
        ({'val_evaluator.iou_metrics': ['mIou']}, 'config', 'val_evaluator.iou_metrics must be'),
        ({'train_dataloader.sampler.type': 'StreamSample'}, 'config', 'no sampler is called'),
        ({'train_cfg.type': 'IterBasedTrainLop'}, 'config', 'no loop is called'),
        ({'train_cfg': None}, 'config', 'has no train_cfg: nothing to run'),
        ({'train_dataloader': None}, 'config', 'has no train_dataloader: nothing to run'),
        (
            {'default_hooks.pictures.indices': 'first'},
            'hooks',
            "default_hooks.pictures: indices must be a list of image numbers, got 'first'",
        ),
        (
            {'custom_hooks': [dict(type='mmseg_adm.FiniteWeightsHook', interval=-1)]},
            'hooks',
            'custom_hooks.0: interval must be an integer >= 0, got -1',
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_a_training_would_refuse(options, name, text, preflight_config):
    preflight_config.merge_from_dict({k: v for k, v in options.items() if v is not None})
    for key in (key for key, value in options.items() if value is None):
        preflight_config[key] = None
    found = failures(preflight_config)
    assert text in found[name]


@pytest.mark.parametrize('hook', ['checkpoint', 'pictures'])
def test_a_folder_that_is_a_file(hook, preflight_config, tmp_path):
    (tmp_path / 'file').write_text('')
    preflight_config.default_hooks[hook].out_dir = str(tmp_path / 'file' / 'inside')
    (text,) = failures(preflight_config).values()
    assert text.startswith(f'default_hooks.{hook}.out_dir {tmp_path}/file/inside: {tmp_path}/file')


def test_a_student_whose_config_cannot_be_read_again(preflight_config):
    preflight_config.model.members.student.decode_head['loss_decode']['reduction'] = object()
    assert 'student export' in failures(preflight_config)


# --------------------------------------------------------------------------- the teacher


class Sampled:
    """A validation set of whose images only some show several classes."""

    def __init__(self, size, several, telling=(), labeled=True):
        self.size, self.several, self.telling = size, several, list(telling)
        self.labeled = labeled
        self.read = []

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.several and self.telling:
            return self.telling[self.several.index(index)]
        labels = torch.full((1, *SIZE), 255)
        if self.labeled:
            labels[0, 0, 0] = 0
        if index in self.several:
            labels[0, 0, 1] = 3
        meta = dict(img_shape=SIZE, ori_shape=SIZE)
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)
        return dict(inputs=torch.zeros(3, *SIZE, dtype=torch.uint8), data_samples=sample)


def test_images_of_several_classes_are_looked_for():
    everywhere = Sampled(640, range(640))
    assert len(telling_samples(everywhere, {255})) == IMAGES
    assert len(everywhere.read) == IMAGES
    # Of the 64 that are looked at these are two.
    rare = Sampled(64, [5, 40])
    samples = telling_samples(rare, {255})
    assert len(samples) == IMAGES
    assert [3 in each['data_samples'].gt_sem_seg.data for each in samples] == [
        True, True, *[False] * (IMAGES - 2),
    ]  # fmt: skip
    assert len(rare.read) == SEARCHED
    assert 0 not in rare.several


@pytest.fixture
def offline_model(preflight_config, trained_teacher):
    preflight_config.model.members.teacher.update(frozen=True, checkpoint=str(trained_teacher))
    preflight_config.model.methods = dict(kd=dict(type='mmseg_adm.KD'))
    return inspect_model(preflight_config)


@pytest.mark.slow
def test_a_good_teacher_whose_first_images_are_background(offline_model, preflight_config):
    from mmengine.registry import DATASETS

    city = DATASETS.build(preflight_config.val_dataloader.dataset)
    dataset = Sampled(64, [5, 30, 40], [city[index] for index in range(3)])
    report = Report()
    check_teachers(offline_model, dataset, report)
    (line,) = (check for check in report.checks if check.name == 'score of teacher')
    assert line.status == 'ok'
    assert 'on 8 validation images' in line.text


@pytest.mark.parametrize(
    ('several', 'labeled'),
    [
        pytest.param([], True, marks=pytest.mark.slow, id='one class'),
        pytest.param([1], True, marks=pytest.mark.slow, id='the second class is elsewhere'),
        pytest.param([], False, id='nothing is labeled'),
    ],
)
def test_a_teacher_is_not_scored_where_no_two_classes_are(several, labeled, offline_model):
    """Neither found nor missed: what everybody scores 100 % on tells nothing."""
    report = Report()
    # Index 1 of 640 is not among those that are looked at.
    check_teachers(offline_model, Sampled(640, several, labeled=labeled), report)
    assert report.failed == []
    assert (report.checks[-1].name, report.checks[-1].status) == ('teacher', 'warning')
    assert report.checks[-1].text == (
        'not scored: of 64 validation images, spread over the set, none shows a second class'
    )
