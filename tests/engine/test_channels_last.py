import pytest
import torch
from factory import ROOT, demo_config, save_segmentor, segmentor, shrink
from mmengine.config import Config
from torch import nn
from torch.testing import assert_close

from mmseg_adm.commands.launch import CHANNELS_LAST, enable_channels_last
from mmseg_adm.commands.main import parse
from mmseg_adm.engine import QuietRunner


def trained(city, work_dir, channels_last, width=16, **options):
    config = demo_config(city, work_dir, iters=3, **options)
    for member in config.model.members.values():
        shrink(member, width)
    if channels_last:
        enable_channels_last(config)
    runner = QuietRunner.from_cfg(config)
    runner.train()
    return runner


def convolutions_of(network):
    return [each for each in network.modules()
            if isinstance(each, nn.Conv2d) and each.kernel_size != (1, 1)]  # fmt: skip


def laid_out(network):
    """Whether each convolution has its channels last; of 1x1 ones no layout can be told."""
    found = convolutions_of(network)
    assert found
    return {each.weight.is_contiguous(memory_format=torch.channels_last) for each in found}


@pytest.mark.slow
def test_the_same_training_in_another_layout(city, tmp_path):
    plain = trained(city, tmp_path / 'plain', channels_last=False)
    other = trained(city, tmp_path / 'other', channels_last=True)
    assert laid_out(plain.model.network('student')) == {False}
    for name in ('student', 'teacher'):
        assert laid_out(other.model.network(name)) == {True}
    for name, rounding in (('loss', 1e-5), ('dml.loss_student', 1e-3), ('adm.similarity', 1e-4)):
        first, second = (
            runner.message_hub.get_scalar(f'train/{name}').data[0] for runner in (plain, other)
        )
        assert_close(first[0], second[0], rtol=rounding, atol=0)
    # Three steps from there: sums in another order, and BN over two images.
    wanted = plain.model.state_dict()
    for key, value in other.model.state_dict().items():
        assert_close(value, wanted[key], rtol=0.05, atol=0.01)


def test_maps_follow_the_weights(city, tmp_path):
    runner = trained(city, tmp_path, channels_last=True)
    seen = []
    student = runner.model.network('student')
    for each in convolutions_of(student):
        each.register_forward_hook(lambda _, __, maps: seen.append(maps))
    student(torch.rand(2, 3, 32, 48), mode='tensor')
    assert seen
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)


def test_a_frozen_member_too_and_a_resumed_run(city, tmp_path):
    teacher = segmentor(16, classes=19)
    shrink(teacher, 16)
    checkpoint = save_segmentor(tmp_path / 'teacher.pth', teacher)
    frozen = dict(model__members__teacher=dict(teacher, frozen=True, checkpoint=checkpoint),
                  model__members__student=segmentor(16, classes=19),
                  model__methods=dict(_delete_=True, kd=dict(type='mmseg_adm.KD')))  # fmt: skip
    runner = trained(city, tmp_path / 'run', channels_last=True, **frozen)
    assert laid_out(runner.model.network('teacher')) == {True}
    config = demo_config(city, tmp_path / 'run', iters=5, resume=True, **frozen)
    for member in config.model.members.values():
        shrink(member, 16)
    enable_channels_last(config)
    resumed = QuietRunner.from_cfg(config)
    resumed.train()
    assert resumed.iter == 5
    assert {laid_out(resumed.model.network(name)) == {True} for name in ('student', 'teacher')} == {
        True
    }


def test_the_flag_is_written_into_the_config():
    args = parse(['train', str(ROOT / 'configs/pspnet/none.py'), '--channels-last'])
    assert args.channels_last
    config = Config(dict(custom_hooks=[dict(type='EMAHook')]))
    for _ in range(2):
        enable_channels_last(config)
    assert [hook.type for hook in config.custom_hooks] == ['EMAHook', CHANNELS_LAST]


@pytest.mark.skipif(torch.cuda.is_available(), reason='CUDA computes them rightly')
def test_a_layer_that_would_corrupt_memory_is_refused(city, tmp_path):
    text = r'members\.student\.backbone\.layer2\.0\.downsample\.0 has a stride and reads 4 channels'
    with pytest.raises(ValueError, match=text):
        trained(city, tmp_path, channels_last=True, width=4)
