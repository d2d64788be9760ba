import copy

import cv2
import mmengine
import numpy as np
import pytest
import torch
from factory import ROOT, build, demo_config, differences
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from mmengine.runner import Runner
from mmseg.datasets import CityscapesDataset

from mmseg_adm.config import check_monitored
from mmseg_adm.engine.known_predictions import small_label_map
from mmseg_adm.engine.loops import AgreementMetric, MembersValLoop
from mmseg_adm.export import plain_config
from mmseg_adm.models.taps import find_classifier

OFFLINE = ROOT / (
    'configs/adm/adm-offline_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
)
PLAIN = ROOT / 'configs/pspnet/pspnet_r18-w16-d8_1xb8-demo_synthetic-city-96x128.py'
MEMBERS = ('student', 'teacher')


class Outputs(Hook):
    """Keeps what the hooks of a validation are given."""

    def __init__(self):
        self.batches = []
        self.metrics = None

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.batches.append((data_batch, outputs))

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def bare(config):
    """Without the hooks that write files."""
    config.default_hooks.checkpoint.save_best = None
    for name in ('pictures', 'student_checkpoint'):
        config.default_hooks.pop(name, None)
    return config


def scatter(runner):
    """Let each network predict many classes, each network others."""
    torch.manual_seed(0)
    model = runner.model
    data = model.data_preprocessor(next(iter(runner.val_dataloader)))
    for name in model.member_names:
        network = model.network(name).train()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network(data['inputs'].repeat(2, 1, 1, 1))
        torch.nn.init.normal_(find_classifier(network.eval()).weight)


@pytest.fixture(scope='module')
def validated(city, tmp_path_factory):
    """One validation of two networks: the runner, its metrics, the images read, the outputs."""
    config = bare(demo_config(city, tmp_path_factory.mktemp('validated')))
    runner = Runner.from_cfg(config)
    scatter(runner)
    outputs = Outputs()
    runner.register_hook(outputs)
    read = []
    prepare = CityscapesDataset.prepare_data

    def count(dataset, index):
        read.append(index)
        return prepare(dataset, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CityscapesDataset, 'prepare_data', count)
        metrics = runner.val()
    return runner, metrics, read, outputs


def plain_metrics(city, work_dir, model, member):
    """Metrics of one network in mmseg's own validation."""
    config = bare(demo_config(city, work_dir))
    config.model = plain_config(config, member).model
    config.val_cfg = dict(type='ValLoop')
    config.default_hooks.pop('schedule')
    runner = Runner.from_cfg(config)
    runner.model.load_state_dict(model.network(member).state_dict())
    return runner.val()


@pytest.mark.parametrize('member', MEMBERS)
def test_metrics_are_those_of_each_network_alone(member, validated, city, tmp_path):
    runner, metrics, _, _ = validated
    expected = plain_metrics(city, tmp_path, runner.model, member)
    assert expected['aAcc'] > 0
    assert {key: metrics[f'{member}/{key}'] for key in expected} == expected


def test_the_networks_differ(validated):
    metrics = validated[1]
    assert metrics['student/aAcc'] != metrics['teacher/aAcc']
    assert 0 < metrics['agreement'] < 100


def test_each_image_is_read_once(validated):
    assert validated[2] == [0, 1, 2]


def test_gap(validated):
    metrics = validated[1]
    gap = metrics['teacher/mIoU'] - metrics['student/mIoU']
    assert gap != 0
    assert metrics['gap/mIoU'] == pytest.approx(gap, abs=1e-6)


def test_agreement_counts_labeled_pixels(validated):
    model = validated[0].model
    same = labeled = 0
    for data, _ in validated[3].batches:
        predictions = model.predict_members(data, MEMBERS)
        labels = data['data_samples'][0].gt_sem_seg.data[0].numpy()
        first, second = (predictions[name][0].pred_sem_seg.data[0].numpy() for name in MEMBERS)
        for row in range(labels.shape[0]):
            for column in range(labels.shape[1]):
                if labels[row, column] != 255:
                    labeled += 1
                    same += first[row, column] == second[row, column]
    assert validated[1]['agreement'] == round(100 * same / labeled, 2)


def test_members_do_not_write_into_each_others_samples(validated):
    runner, _, _, outputs = validated
    for data, predicted in outputs.batches:
        assert 'pred_sem_seg' not in data['data_samples'][0]
        expected = runner.model.predict_members(data, ('student',))['student'][0]
        assert torch.equal(predicted[0].pred_sem_seg.data, expected.pred_sem_seg.data)


def test_hooks_see_all_metrics(validated):
    _, metrics, _, outputs = validated
    assert outputs.metrics == metrics
    names = {f'{member}/{name}' for member in MEMBERS for name in ('aAcc', 'mIoU', 'mAcc')}
    assert metrics.keys() == names | {'gap/mIoU', 'agreement'}


def test_three_members(city, tmp_path):
    config = bare(demo_config(city, tmp_path))
    config.model.members.peer = config.model.members.student
    runner = Runner.from_cfg(config)
    scatter(runner)
    metrics = runner.val()
    for other in ('teacher', 'peer'):
        gap = metrics[f'{other}/mIoU'] - metrics['student/mIoU']
        assert metrics[f'gap/{other}/mIoU'] == pytest.approx(gap, abs=1e-6)
    assert 'gap/mIoU' not in metrics
    assert metrics['agreement'] < 100


def test_an_average_is_measured_and_compared_with_nobody(city, tmp_path):
    config = bare(demo_config(city, tmp_path))
    found = {}
    for name in ('without', 'with'):
        if name == 'with':
            config.model.members.mean_teacher = dict(type='mmseg_adm.EMATeacher')
        config.experiment_name = f'average_{name}'
        runner = Runner.from_cfg(config)
        found[name] = runner.val()
    average = {key: value for key, value in found['with'].items() if key.startswith('mean_')}
    assert {'mean_teacher/mIoU', 'mean_teacher/aAcc'} <= average.keys()
    assert found['with'].keys() - average.keys() == found['without'].keys()
    assert {'gap/mIoU', 'agreement'} <= found['without'].keys()


def test_one_member_has_neither_gap_nor_agreement(city, tmp_path):
    config = bare(demo_config(city, tmp_path))
    config.model.members.pop('teacher')
    config.model.methods = {}
    metrics = Runner.from_cfg(config).val()
    assert metrics.keys() == {'student/aAcc', 'student/mIoU', 'student/mAcc'}


def test_a_frozen_member_is_evaluated_and_the_best_student_saved(city, tmp_path):
    network = plain_config(demo_config(city, tmp_path, config=OFFLINE), 'teacher').model
    teacher = build(network)
    torch.save({'state_dict': teacher.state_dict()}, tmp_path / 'teacher.pth')
    config = demo_config(
        city, tmp_path, iters=1, config=OFFLINE,
        model__members__teacher__checkpoint=str(tmp_path / 'teacher.pth'),
    )  # fmt: skip
    config.default_hooks.pop('pictures')
    runner = Runner.from_cfg(config)
    outputs = Outputs()
    runner.register_hook(outputs)
    runner.train()
    metrics = outputs.metrics
    expected = plain_metrics(city, tmp_path, runner.model, 'teacher')
    print('VALUES', expected, metrics)
    assert {key: metrics[f'teacher/{key}'] for key in expected} == expected
    assert (tmp_path / 'best_student_mIoU_iter_1.pth').is_file()
    assert runner.message_hub.get_info('best_score') == metrics['student/mIoU']


@pytest.fixture(scope='module')
def offline(city, tmp_path_factory):
    """A run with a frozen teacher, ready to validate, and whose backbones run in it."""
    folder = tmp_path_factory.mktemp('offline')
    config = bare(demo_config(city, folder, config=OFFLINE))
    network = plain_config(config, 'teacher').model
    torch.save({'state_dict': build(network).state_dict()}, folder / 'teacher.pth')
    config.model.members.teacher.checkpoint = str(folder / 'teacher.pth')
    config.val_evaluator = [
        config.val_evaluator,
        dict(type='DumpResults', out_file_path=str(folder / 'predictions.pkl')),
    ]
    runner = Runner.from_cfg(config)
    scatter(runner)
    seen = []
    for name in MEMBERS:
        backbone = runner.model.network(name).backbone
        backbone.register_forward_hook(lambda *_, name=name: seen.append(name))
    return runner, seen


def validate(offline, loop):
    """Metrics, dumped predictions of the teacher by image, and how often each network ran."""
    runner, seen = offline
    seen.clear()
    metrics = loop.run()
    dumped = mmengine.load(f'{runner.work_dir}/teacher/predictions.pkl')
    maps = {each['img_path']: each['pred_sem_seg']['data'] for each in dumped}
    return metrics, maps, tuple(seen.count(name) for name in MEMBERS)


def loop_of(offline, **options):
    runner, _ = offline
    data, evaluator = (
        copy.deepcopy(runner.cfg[key]) for key in ('val_dataloader', 'val_evaluator')
    )
    if options.pop('shuffle', False):
        data.sampler.shuffle = True
    return MembersValLoop(runner, data, evaluator, **options)


def check_as_if_unknown(offline, loop, ran, **options):
    """What a validation finds is what one finds that knows nothing; ``ran`` of three images."""
    found, maps, count = validate(offline, loop)
    expected, expected_maps, all_of_them = validate(
        offline, loop_of(offline, cache_mib=0, **options)
    )
    assert found == expected
    assert differences(maps, expected_maps) == []
    assert count == (all_of_them[0], ran)


@pytest.mark.core
@pytest.mark.parametrize('agreement', [True, False])
def test_a_frozen_member_predicts_an_image_once(agreement, offline):
    loop = loop_of(offline, agreement=agreement)
    check_as_if_unknown(offline, loop, 3, agreement=agreement)
    before = find_classifier(offline[0].model.network('student')).weight
    for _ in range(2):
        torch.nn.init.normal_(before)  # the student has learned
        check_as_if_unknown(offline, loop, 0, agreement=agreement)


def write_past_autograd(network):
    find_classifier(network).weight.data.neg_()


def change_statistics(network):
    next(
        module for module in network.modules() if hasattr(module, 'running_mean')
    ).running_mean += 1


def leave_in_training(network):
    network.decode_head.dropout.train()


@pytest.mark.parametrize('change', [write_past_autograd, change_statistics, leave_in_training])
def test_a_frozen_member_that_is_another_now_predicts_anew(change, offline):
    network = offline[0].model.network('teacher')
    kept = copy.deepcopy(network.state_dict())
    loop = loop_of(offline)
    validate(offline, loop)
    size = loop.known.size
    try:
        change(network)
        assert validate(offline, loop)[2] == (3, 3)
        assert loop.known.size == size
    finally:
        network.eval()
        network.load_state_dict(kept)


def test_a_shuffled_set_finds_its_images_again(offline):
    loop = loop_of(offline, shuffle=True)
    validate(offline, loop)
    loop.dataloader.sampler.set_epoch(1)
    order = list(loop.dataloader.sampler)
    loop.dataloader.sampler.set_epoch(0)
    assert order != list(loop.dataloader.sampler)
    loop.dataloader.sampler.set_epoch(1)
    check_as_if_unknown(offline, loop, 0)


def test_images_that_are_others_now_are_predicted(offline):
    loop = loop_of(offline)
    validate(offline, loop)
    dataset = loop.dataloader.dataset
    prepare = dataset.prepare_data

    def flipped(index):
        data = prepare(index)
        if index == 1:
            data['inputs'] = data['inputs'].flip(-1)
            data['data_samples'].gt_sem_seg.data = data['data_samples'].gt_sem_seg.data.flip(-1)
        return data

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, 'prepare_data', flipped)
        again = loop_of(offline, cache_mib=0)
        patch.setattr(again.dataloader.dataset, 'prepare_data', flipped)
        found, maps, count = validate(offline, loop)
        expected, expected_maps, _ = validate(offline, again)
    assert (found, count) == (expected, (3, 1))
    assert differences(maps, expected_maps) == []


def test_what_goes_beyond_the_limit_is_predicted_each_time(offline):
    loop = loop_of(offline)
    validate(offline, loop)
    size = loop.known.size
    loop = loop_of(offline)
    loop.known.limit = size // 2
    validate(offline, loop)
    assert 0 < loop.known.size <= size // 2
    check_as_if_unknown(offline, loop, 2)


def test_a_label_map_takes_a_byte_a_pixel():
    label_map = torch.arange(150).view(10, 15)
    assert torch.equal(small_label_map(label_map, 150).long(), label_map)
    assert small_label_map(label_map, 256).nbytes == 150
    assert small_label_map(label_map, 257).nbytes == 300


@pytest.mark.parametrize('size', [-1, 1.5])
def test_a_wrong_cache_size_is_refused(size, offline):
    with pytest.raises(ValueError, match=r'val_cfg\.cache_mib must be an integer >= 0, got'):
        loop_of(offline, cache_mib=size)


DICE = dict(type='IoUMetric', iou_metrics=['mDice'], prefix='dice')


def several(form, dump):
    """Two metrics with prefixes and a dump, in every form that MMEngine takes."""
    metrics = [
        dict(type='DumpResults', out_file_path=dump),
        dict(type='IoUMetric', prefix='val', ignore_index=7),
        DICE,
    ]
    if form == 'list':
        return metrics
    if form == 'objects':
        return [METRICS.build(metric) for metric in metrics]
    return dict(type='Evaluator', metrics=metrics)


@pytest.mark.core
@pytest.mark.parametrize('form', ['list', 'evaluator', 'objects'])
def test_several_metrics_are_each_members_under_their_own_prefix(form, city, tmp_path):
    dump = str(tmp_path / 'dumped' / 'predictions.pkl')
    config = bare(demo_config(city, tmp_path))
    config.pop('val_evaluator')
    config.val_evaluator = several('list' if form == 'objects' else form, dump)
    runner = Runner.from_cfg(config)
    if form == 'objects':  # as given to a Runner in Python
        runner._val_evaluator = several(form, dump)
    scatter(runner)
    metrics = runner.val_loop.run()
    assert metrics.keys() == {
        *(f'{member}/{name}' for member in MEMBERS for name in (
            'val/aAcc', 'val/mIoU', 'val/mAcc', 'dice/aAcc', 'dice/mDice', 'dice/mAcc')),
        'gap/val/mIoU', 'agreement',
    }  # fmt: skip
    config.default_hooks.checkpoint.save_best = list(metrics)
    check_monitored(config)
    gap = metrics['teacher/val/mIoU'] - metrics['student/val/mIoU']
    assert metrics['gap/val/mIoU'] == pytest.approx(gap, abs=1e-6) != 0
    assert runner.val_loop.agreement.metrics[0].ignore_index == 7
    for member in MEMBERS:
        found = mmengine.load(tmp_path / 'dumped' / member / 'predictions.pkl')
        expected = [runner.model.predict_members(data, (member,))[member][0].pred_sem_seg.data
                    for data in runner.val_dataloader]  # fmt: skip
        assert len(found) == 3
        for each, prediction in zip(found, expected, strict=True):
            assert torch.equal(each['pred_sem_seg']['data'], prediction)


def test_three_members_have_a_gap_of_each_prefix(city, tmp_path):
    config = bare(demo_config(city, tmp_path))
    config.model.members.peer = config.model.members.student
    config.val_evaluator.prefix = 'val'
    metrics = Runner.from_cfg(config).val()
    assert {key for key in metrics if key.startswith('gap/')} == {
        'gap/teacher/val/mIoU', 'gap/peer/val/mIoU'
    }  # fmt: skip


@pytest.mark.core
def test_a_best_metric_that_no_member_has_is_refused_before_the_first_iteration(city, tmp_path):
    config = demo_config(city, tmp_path, default_hooks__checkpoint__save_best='mIoU')
    runner = Runner.from_cfg(config)
    with pytest.raises(ValueError, match=r"save_best is 'mIoU', .* mean 'student/mIoU'"):
        runner.train()
    assert runner.iter == 0


@pytest.mark.parametrize(('fp16', 'dtype'), [(False, torch.float32), (True, torch.bfloat16)])
def test_half_precision(fp16, dtype, city, tmp_path):
    config = bare(demo_config(city, tmp_path, val_cfg__fp16=fp16))
    runner = Runner.from_cfg(config)
    scatter(runner)
    seen = set()
    for name in MEMBERS:
        classifier = find_classifier(runner.model.network(name))
        classifier.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    metrics = runner.val()
    assert seen == {dtype}
    assert metrics['student/aAcc'] > 0


@pytest.mark.parametrize(
    ('stage', 'text'),
    [
        ('val', r"MembersValLoop .* for a EncoderDecoder .* val_cfg=dict\(type='ValLoop'\)"),
        ('test', r"MembersTestLoop .* for a EncoderDecoder .* test_cfg=dict\(type='TestLoop'\)"),
    ],
)
def test_a_plain_segmentor_is_refused(stage, text, city, tmp_path):
    config = demo_config(city, tmp_path, config=PLAIN)
    config[f'{stage}_cfg'] = dict(type=f'mmseg_adm.Members{stage.capitalize()}Loop')
    runner = Runner.from_cfg(config)
    with pytest.raises(TypeError, match=text):
        getattr(runner, stage)()


def test_testing_writes_the_label_maps_of_each_member(city, tmp_path):
    out = tmp_path / 'maps'
    config = bare(
        demo_config(
            city, tmp_path, test_evaluator__output_dir=str(out), test_evaluator__keep_results=True
        )
    )
    runner = Runner.from_cfg(config)
    scatter(runner)
    metrics = runner.test()
    assert metrics['student/aAcc'] > 0
    assert sorted(path.name for path in out.iterdir()) == sorted(MEMBERS)
    for data in runner.test_dataloader:
        name = data['data_samples'][0].img_path.split('/')[-1]
        predictions = runner.model.predict_members(data, MEMBERS)
        for member in MEMBERS:
            written = cv2.imread(str(out / member / name), cv2.IMREAD_UNCHANGED)
            expected = predictions[member][0].pred_sem_seg.data[0].numpy()
            assert (written == expected).all()


def test_testing_without_labels_writes_the_label_maps(city, tmp_path):
    out = tmp_path / 'maps'
    config = bare(
        demo_config(
            city, tmp_path, test_evaluator__output_dir=str(out), test_evaluator__format_only=True
        )
    )
    pipeline = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset.pipeline = [
        step for step in pipeline if step.type != 'LoadAnnotations'
    ]
    Runner.from_cfg(config).test()
    assert [len(list((out / member).iterdir())) for member in MEMBERS] == [3, 3]


# ---------------------------------------------------------------------- agreement alone


def agreement(*samples, **options):
    evaluator = Evaluator(AgreementMetric(**options))
    for label, *predictions in samples:
        each = {'label': torch.tensor(label), 'predictions': list(map(torch.tensor, predictions))}
        evaluator.process([each])
    (value,) = evaluator.evaluate(len(samples)).values()
    return value


def test_agreement_of_two():
    # Five labeled pixels, three of them predicted alike; whether rightly plays no part.
    label = [[0, 1, 255], [2, 2, 0]]
    assert agreement((label, [[0, 0, 1], [2, 1, 1]], [[0, 1, 1], [2, 1, 2]])) == 60.0


def test_agreement_of_three_is_that_of_all():
    label = [[0, 0, 0, 0]]
    assert agreement((label, [[1, 1, 1, 1]], [[1, 1, 2, 2]], [[1, 2, 1, 2]])) == 25.0


def test_agreement_weighs_images_by_their_labeled_pixels():
    large = ([[0, 0, 0]], [[1, 1, 1]], [[1, 1, 1]])
    small = ([[0, 255, 255]], [[1, 1, 1]], [[2, 1, 1]])
    assert agreement(large, small) == 75.0


def test_agreement_ignores_another_index():
    sample = ([[0, 255]], [[1, 1]], [[1, 2]])
    assert agreement(sample) == 100.0
    assert agreement(sample, ignore_index=0) == 0.0


def test_agreement_without_a_labeled_pixel():
    assert np.isfinite(agreement(([[255]], [[1]], [[1]])))
