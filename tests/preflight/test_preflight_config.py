"""A config fed with wrong things: each is one short line."""

import re
import shutil
from pathlib import Path

import cv2
import pytest
import torch
from method_models import network
from mmengine.config import Config

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.config.lengths import check_lengths
from mmseg_adm.paths import configs_of
from mmseg_adm.preflight import Report, as_text, inspect_config
from mmseg_adm.preflight.settings import check_settings

pytestmark = pytest.mark.core


@pytest.fixture
def copied(city, tmp_path, preflight_config):
    root = Path(shutil.copytree(city, tmp_path / 'city'))
    preflight_config.train_dataloader.dataset.dataset.data_root = str(root)
    preflight_config.val_dataloader.dataset.data_root = str(root)
    return root


@pytest.fixture
def offline_config(preflight_config, trained_teacher):
    preflight_config.model.members.teacher.update(frozen=True, checkpoint=str(trained_teacher))
    preflight_config.model.methods = dict(kd=dict(type='mmseg_adm.KD'))
    return preflight_config


def failures(config):
    report = inspect_config(config)
    assert 'Traceback' not in as_text(report)
    return {check.name: check.text for check in report.failed}


def checks(config):
    return {check.name: (check.status, check.text) for check in inspect_config(config).checks}


def test_nothing_is_wrong(preflight_config, tmp_path):
    report = inspect_config(preflight_config)
    assert {check.status for check in report.checks} == {'ok'}
    assert [check.name for check in report.checks] == [
        'schedules', 'class names', 'class counts', 'train data', 'val data', 'terms', 'validation',
    ]  # fmt: skip
    assert report.checks[-1].text == 'student, teacher predict a batch of 1 image'
    assert report.crop == (32, 48)
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_trained_teacher_passes(offline_config, trained_teacher):
    found = checks(offline_config)
    assert {status for status, _ in found.values()} == {'ok'}
    assert found['weights of teacher'][1] == f'{trained_teacher} fits strictly'
    assert found['classes of teacher'][1] == 'the 19 of the data, in the same order'


def test_a_missing_data_root(preflight_config, tmp_path):
    preflight_config.train_dataloader.dataset.dataset.data_root = str(tmp_path / 'nowhere')
    (text,) = failures(preflight_config).values()
    assert text.startswith(f'train data (CityscapesDataset): {tmp_path}/nowhere does not exist')


def test_other_classes_than_the_data(preflight_config):
    for member in preflight_config.model.members.values():
        member.decode_head.num_classes = 7
    found = failures(preflight_config)
    assert set(found) == {'class counts'}
    assert found['class counts'].startswith("'student' predicts 7 classes, but Cityscapes")


def test_members_of_different_classes(preflight_config):
    preflight_config.model.members.teacher.decode_head.num_classes = 7
    assert 'predict different numbers of classes' in failures(preflight_config)['networks']


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_label_out_of_range(split, copied, preflight_config):
    path = sorted((copied / 'gtFine' / split).rglob('*_labelTrainIds.png'))[1]
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[3, 5] = 40
    cv2.imwrite(str(path), label)
    found = failures(preflight_config)
    assert set(found) == {f'{split} data'}
    assert found[f'{split} data'].startswith(f'{path} holds the label 40, but')


@pytest.mark.parametrize('part', ['leftImg8bit', 'gtFine'])
def test_a_file_that_does_not_decode(part, copied, preflight_config):
    path = sorted((copied / part / 'val').rglob('*.png'))[0]
    path.write_bytes(path.read_bytes()[:40])
    assert failures(preflight_config) == {
        'val data': f'{path} cannot be decoded: copy or download it again'
    }


def test_a_loader_that_contradicts_its_data_set(preflight_config):
    for part in (preflight_config.train_dataloader.dataset, preflight_config.val_dataloader):
        (load,) = (
            each for each in part.dataset.pipeline if each.type.startswith('LoadAnnotations')
        )
        load.reduce_zero_label = True
    found = failures(preflight_config)
    assert set(found) >= {'train data', 'val data'}
    for split in ('train', 'val'):
        text = found[f'{split} data']
        assert '_labelTrainIds.png: Initialize dataset with `reduce_zero_label` as False' in text


def test_a_label_map_of_another_size(copied, preflight_config):
    path = sorted((copied / 'gtFine' / 'train').rglob('*_labelTrainIds.png'))[0]
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(path), label[:10])
    text = failures(preflight_config)['train data']
    assert text.startswith(f'{path} is 10x96, but its image ')
    assert text.endswith(' 48x96')


@pytest.mark.parametrize('change', ['order', 'count'])
def test_train_and_val_of_other_classes(change, preflight_config):
    from mmseg.datasets import CityscapesDataset

    classes = list(CityscapesDataset.METAINFO['classes'])
    preflight_config.train_dataloader.dataset.dataset.metainfo = dict(classes=classes)
    other = [classes[1], classes[0], *classes[2:]] if change == 'order' else classes[:-1]
    preflight_config.val_dataloader.dataset.metainfo = dict(classes=other)
    text = failures(preflight_config)['class names']
    if change == 'order':
        assert "class 0 is 'road' in train and 'sidewalk' in val (the same names in another" in text
    else:
        assert text.startswith('train has 19 classes, val 18')


def test_other_colors_are_a_warning(preflight_config):
    palette = [[index, 0, 0] for index in range(19)]
    preflight_config.val_dataloader.dataset.metainfo = dict(palette=palette)
    assert checks(preflight_config)['palette'][0] == 'warning'


def test_a_teacher_that_was_never_trained(offline_config, trained_teacher, tmp_path):
    from factory import save_segmentor

    checkpoint = save_segmentor(tmp_path / 'fresh.pth', network(8, classes=19))
    offline_config.model.members.teacher.checkpoint = checkpoint
    found = checks(offline_config)
    status, text = found['score of teacher']
    assert status == 'failed'
    assert 'would be chance: it teaches noise' in text
    assert checkpoint in text
    assert found['classes of teacher'][0] == 'warning'


def test_a_teacher_that_goes_on_training_is_scored_too(preflight_config, trained_teacher):
    preflight_config.model.members.teacher.checkpoint = str(trained_teacher)
    found = checks(preflight_config)
    for line in ('weights of teacher', 'score of teacher', 'classes of teacher'):
        assert found[line][0] == 'ok'


def test_a_teacher_that_goes_on_from_nothing_is_a_warning(preflight_config, tmp_path):
    from factory import save_segmentor

    checkpoint = save_segmentor(tmp_path / 'fresh.pth', network(8, classes=19))
    preflight_config.model.members.teacher.checkpoint = checkpoint
    status, text = checks(preflight_config)['score of teacher']
    assert status == 'warning'
    assert 'would be chance: it starts as noise' in text


def test_a_teacher_that_goes_on_may_learn_other_classes(
    preflight_config, trained_teacher, tmp_path
):
    checkpoint = read_checkpoint(trained_teacher)
    checkpoint['meta']['dataset_meta']['classes'][0] = 'lane'
    torch.save(checkpoint, tmp_path / 'other.pth')
    preflight_config.model.members.teacher.checkpoint = str(tmp_path / 'other.pth')
    status, text = checks(preflight_config)['classes of teacher']
    assert status == 'warning'
    assert text.endswith('It has to learn them anew')


def test_a_backbone_alone_is_not_scored(preflight_config, trained_teacher, tmp_path):
    weights = read_checkpoint(trained_teacher)['state_dict']
    backbone = {key: value for key, value in weights.items() if key.startswith('backbone.')}
    torch.save(dict(state_dict=backbone), tmp_path / 'backbone.pth')
    preflight_config.model.members.teacher.update(
        checkpoint=str(tmp_path / 'backbone.pth'), init_cfg=None
    )
    assert not [name for name in checks(preflight_config) if 'teacher' in name]


def test_a_truncated_teacher(offline_config, trained_teacher, tmp_path):
    path = tmp_path / 'truncated.pth'
    path.write_bytes(trained_teacher.read_bytes()[:5000])
    offline_config.model.members.teacher.checkpoint = str(path)
    assert (
        f"member 'teacher': {path} is damaged or truncated" in failures(offline_config)['networks']
    )


def test_a_teacher_of_another_network(offline_config, tmp_path):
    from factory import save_segmentor

    path = save_segmentor(tmp_path / 'other.pth', network(6, classes=19))
    offline_config.model.members.teacher.checkpoint = path
    text = failures(offline_config)['networks']
    assert f"the checkpoint of member 'teacher', {path}, does not fit EncoderDecoder" in text


def test_a_teacher_of_the_same_classes_in_another_order(offline_config, trained_teacher, tmp_path):
    checkpoint = read_checkpoint(trained_teacher)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(0))
    for name in ('weight', 'bias'):
        key = f'decode_head.conv_seg.{name}'
        checkpoint['state_dict'][key] = checkpoint['state_dict'][key][order]
    classes = checkpoint['meta']['dataset_meta']['classes']
    checkpoint['meta']['dataset_meta']['classes'] = [classes[index] for index in order]
    path = tmp_path / 'shuffled.pth'
    torch.save(checkpoint, path)
    offline_config.model.members.teacher.checkpoint = str(path)
    found = failures(offline_config)
    assert set(found) == {'score of teacher', 'classes of teacher'}
    assert 'the same names in another order' in found['classes of teacher']


def test_the_classes_in_an_old_checkpoint(offline_config, trained_teacher, tmp_path):
    checkpoint = read_checkpoint(trained_teacher)
    checkpoint['meta'] = {'CLASSES': checkpoint['meta']['dataset_meta']['classes']}
    path = tmp_path / 'old.pth'
    torch.save(checkpoint, path)
    offline_config.model.members.teacher.checkpoint = str(path)
    assert checks(offline_config)['classes of teacher'][0] == 'ok'


def test_an_option_that_no_method_has(preflight_config):
    preflight_config.model.methods.adm.consensus_wieght = 2
    assert "Did you mean 'consensus_weight'?" in failures(preflight_config)['networks']


def test_an_optimizer_that_does_not_exist(preflight_config):
    preflight_config.optim_wrapper.optimizer.type = 'SGDD'
    assert set(failures(preflight_config)) == {'config', 'optimizer'}


def test_without_validation_a_teacher_is_not_scored(offline_config):
    offline_config.val_dataloader = None
    found = checks(offline_config)
    assert found['teacher'] == ('warning', 'not scored: the config has no validation set')


def test_a_plain_segmentor(preflight_config):
    plain = dict(preflight_config.model.members.student)
    plain['data_preprocessor'] = preflight_config.model.data_preprocessor
    preflight_config.model = plain
    preflight_config.default_hooks.checkpoint.save_best = 'mIoU'
    report = inspect_config(preflight_config)
    assert [check.name for check in report.checks] == [
        'schedules', 'class names', 'class counts', 'train data', 'val data', 'validation',
    ]  # fmt: skip
    (member,) = report.members
    assert (member.name, member.role) == ('model', 'trained')
    assert member.flops > 0
    assert report.terms == report.methods == []


# --------------------------------------------------- what a run would take without a word


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('train_dataloder', 'train_dataloader'),
        ('optim_wraper', 'optim_wrapper'),
        ('param_schedulers', 'param_scheduler'),
        ('default_hook', 'default_hooks'),
    ],
)
def test_a_misspelt_name_at_the_top(key, meant, preflight_config):
    preflight_config[key] = dict(batch_size=4)
    preflight_config.my_own_variable = 1
    assert checks(preflight_config)['names'] == (
        'warning', f"nobody reads '{key}' at the top of the config: is '{meant}' meant?"
    )  # fmt: skip


@pytest.mark.parametrize('package', ['mmseg', 'mmseg_adm'])
def test_variables_of_shipped_configs_are_not_misspelt(package):
    # One of mmseg's configs sets 'models' where it means 'model', and trains without its sampler.
    names = {
        name
        for path in configs_of(package).rglob('*.py')
        for name in re.findall(r'^(\w+)\s*=', path.read_text(), re.MULTILINE)
    } - {'models'}
    report = Report()
    check_settings(Config(dict.fromkeys(names) | dict(model=dict(type='EncoderDecoder'))), report)
    assert report.checks == []


def test_no_methods_at_all(preflight_config):
    preflight_config.model.methods = dict(adm=None)
    status, text = checks(preflight_config)['methods']
    assert (status, text.partition(':')[0]) == ('warning', 'there are none')


@pytest.mark.parametrize(
    ('schedule', 'status', 'text'),
    [
        (dict(start=4), 'failed', "adm.start is 4, but the run has 4 iterations: 'adm' would nev"),
        (dict(stop=9), 'warning', "adm.stop is 9, but the run has 4 iterations: 'adm' would not"),
        (
            dict(start=2, ramp='linear', ramp_iters=3),
            'warning',
            "adm.ramp_iters is 3, but the run has 4 iterations: 'adm' starts at 2 and would not c",
        ),
        (dict(start=1, ramp='linear', ramp_iters=3, stop=4), None, ''),
    ],
)
def test_a_method_beyond_the_end_of_the_training(schedule, status, text, preflight_config):
    preflight_config.default_hooks.schedule.schedules = dict(adm=schedule)
    found = checks(preflight_config).get('methods')
    if status is None:
        assert found is None
    else:
        assert found[0] == status
        assert f'default_hooks.schedule.schedules.{text}' in found[1]


LENGTHS = [
    ({'train_cfg.max_iters': 0}, 'train_cfg.max_iters must be an integer >= 1, got 0'),
    ({'train_cfg.max_iters': -5}, 'train_cfg.max_iters must be an integer >= 1, got -5'),
    ({'train_cfg.max_iters': True}, 'train_cfg.max_iters must be an integer >= 1, got True'),
    ({'train_cfg.val_interval': 0}, 'train_cfg.val_interval must be an integer >= 1, got 0'),
    (
        {'default_hooks.checkpoint.interval': 0},
        'default_hooks.checkpoint.interval must be an integer >= 1, or -1 for never, got 0',
    ),
    (
        {'default_hooks.logger.interval': '50'},
        "default_hooks.logger.interval must be an integer >= 1, or -1 for never, got '50'",
    ),
    (
        {'custom_hooks': [dict(type='EMAHook', interval=0)]},
        'custom_hooks.0.interval must be an integer >= 1, or -1 for never, got 0',
    ),
]


@pytest.mark.parametrize(('options', 'text'), LENGTHS, ids=lambda value: str(value)[:40])
def test_a_length_of_nothing(options, text, preflight_config):
    preflight_config.merge_from_dict(options)
    with pytest.raises(ValueError, match=f'^{re.escape(text)}$'):
        check_lengths(preflight_config)
    report = Report()
    check_settings(preflight_config, report)
    assert [(each.name, each.text) for each in report.failed] == [('lengths', text)]


def test_lengths_that_are_some(preflight_config):
    preflight_config.merge_from_dict(
        {'train_cfg.max_iters': 8e4, 'default_hooks.checkpoint.interval': -1}
    )
    check_lengths(preflight_config)


def test_images_that_are_left_out(copied, preflight_config):
    image = next((copied / 'leftImg8bit' / 'val').rglob('*.png'))
    image.with_suffix('.PNG').write_bytes(image.read_bytes())
    report = inspect_config(preflight_config)
    warned = [check.text for check in report.checks if check.status == 'warning']
    assert warned == [
        f'left out in {image.parents[1]}: {image.stem}.PNG (not ending in _leftImg8bit.png)'
    ]
