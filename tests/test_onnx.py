import copy
import json
import os
import subprocess
import sys
from functools import partial

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from factory import DEMO, ROOT, demo_config
from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.apis import inference_model, init_model
from mmseg.models.utils import resize
from onnx_networks import NETWORKS, saved, seasoned
from torch import nn
from torch.testing import assert_close

from mmseg_adm.checkpoint import read_checkpoint
from mmseg_adm.export import export_member, onnx
from mmseg_adm.export.onnx import Logits, export_onnx

pytestmark = pytest.mark.core


def session(path):
    return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])


def run(path, images):
    return session(path).run(['output'], {'input': images})[0]


def tool(name, *arguments, **environment):
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, arguments)]
    environment = os.environ | {'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'} | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope='module')
def trained(city, tmp_path_factory):
    """A run with averaged weights: its config's path and its checkpoint's."""
    folder = tmp_path_factory.mktemp('trained')
    config = demo_config(
        city, folder, iters=3, train_cfg__val_begin=1000,
        custom_hooks=[dict(type='EMAHook', momentum=0.3)], optim_wrapper__optimizer__lr=0.05,
        model__members__student__decode_head__pool_scales=(1, 2, 3, 6),
    )  # fmt: skip
    config.default_hooks.pop('student_checkpoint')
    Runner.from_cfg(config).train()
    config.dump(folder / 'config.py')
    return folder / 'config.py', folder / 'iter_3.pth'


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """What the two tools wrote of the student, and what the one for ONNX printed."""
    folder = tmp_path_factory.mktemp('exported')
    plain = tool('export_student.py', *trained, '--out', folder / 'student.pth')
    assert plain.returncode == 0, plain.stderr
    done = tool('export_onnx.py', *trained, '--out', folder / 'student.onnx')
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_the_averaged_student_on_a_photo_as_mmseg_infers(exported, trained, city):
    folder, _ = exported
    state, averaged = (
        read_checkpoint(trained[1])['ema_state_dict'],
        torch.load(folder / 'student.pth', weights_only=True)['state_dict'],
    )
    key = 'decode_head.conv_seg.weight'
    assert not torch.equal(state[f'module.members.student.{key}'], averaged[key])

    image = sorted(city.rglob('val/**/*_leftImg8bit.png'))[0]
    network = init_model(str(folder / 'student.py'), str(folder / 'student.pth'), device='cpu')
    expected = inference_model(network, str(image))
    # The file tells all that it takes to feed it.
    facts = session(folder / 'student.onnx').get_modelmeta().custom_metadata_map
    facts = {name: json.loads(text) for name, text in facts.items()}
    assert facts['bgr_to_rgb']
    pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
    pixels = cv2.resize(pixels, expected.metainfo['img_shape'][::-1])
    normalized = (pixels - np.float32(facts['mean'])) / np.float32(facts['std'])
    found = run(folder / 'student.onnx', normalized.transpose(2, 0, 1)[None].astype('f4'))
    # mmseg returns logits at the size of the photo.
    found = resize(torch.from_numpy(found), expected.metainfo['ori_shape'], mode='bilinear')[0]
    logits = expected.seg_logits.data
    assert logits.std() > 0
    assert_close(found, logits, rtol=0, atol=1e-4 * float(logits.abs().max()))
    assert facts['classes'] == list(network.dataset_meta['classes'])
    assert facts['palette'] == network.dataset_meta['palette']
    assert facts['test_cfg'] == dict(mode='whole')


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(1, 64, 64), (5, 48, 96), (2, 75, 53)])
def test_the_graph_takes_any_batch_and_size(shape, exported):
    folder, _ = exported
    batch, height, width = shape
    network = init_model(str(folder / 'student.py'), str(folder / 'student.pth'), device='cpu')
    images = torch.randn(batch, 3, height, width)
    with torch.no_grad():
        expected = Logits(network)(images).numpy()
    found = run(folder / 'student.onnx', images.numpy())
    assert found.shape == expected.shape == (batch, 19, height, width)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_inputs_and_outputs_have_names(exported):
    graph = session(exported[0] / 'student.onnx')
    assert [value.name for value in graph.get_inputs()] == ['input']
    assert [value.name for value in graph.get_outputs()] == ['output']
    assert graph.get_inputs()[0].shape == ['batch', 3, 'height', 'width']
    assert graph.get_outputs()[0].shape == ['batch', 19, 'height', 'width']


@pytest.mark.slow
def test_the_tool_tells_what_was_compared(exported):
    folder, printed = exported
    assert f'wrote {folder}/student.onnx: any batch, images of any size' in printed
    assert 'ONNX Runtime and PyTorch differ by ' in printed
    assert '1x3x97x131' in printed
    assert sorted(path.name for path in folder.iterdir()) == [
        'student.onnx', 'student.pth', 'student.py',
    ]  # fmt: skip


@pytest.mark.slow
def test_another_member_at_one_size(trained, tmp_path):
    config = Config.fromfile(trained[0])
    plain = export_member(config, trained[1], tmp_path / 'teacher.pth', 'teacher')
    written = export_onnx(config, trained[1], tmp_path / 'teacher', 'teacher', (48, 96))
    assert written.path == tmp_path / 'teacher.onnx'
    assert written.shape == (48, 96)
    assert 0 < written.difference < 1e-4 * written.largest
    network = init_model(str(plain.with_suffix('.py')), str(plain), device='cpu')
    images = torch.randn(4, 3, 48, 96)
    with torch.no_grad():
        expected = Logits(network)(images).numpy()
    found = run(written.path, images.numpy())
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert session(written.path).get_inputs()[0].shape == ['batch', 3, 48, 96]


@pytest.mark.slow
def test_what_was_exported_as_plain_exports_to_the_same(exported, tmp_path):
    folder, _ = exported
    config = Config.fromfile(folder / 'student.py')
    written = export_onnx(config, folder / 'student.pth', tmp_path / 'again.onnx', shape=(48, 96))
    images = torch.randn(2, 3, 48, 96).numpy()
    expected = run(folder / 'student.onnx', images)
    np.testing.assert_allclose(run(written.path, images), expected, atol=1e-4)
    facts = [session(path).get_modelmeta().custom_metadata_map
             for path in (folder / 'student.onnx', written.path)]  # fmt: skip
    assert facts[0] == facts[1]


@pytest.mark.slow
def test_colors_as_arrays_are_written_as_lists(tmp_path):
    config, checkpoint = saved('FCN', tmp_path)
    content = torch.load(checkpoint, weights_only=True)
    palette = np.arange(6, dtype=np.int64).reshape(2, 3)
    content['meta'] = dict(dataset_meta=dict(classes=('road', 'sky'), palette=palette))
    torch.save(content, checkpoint)
    written = export_onnx(config, checkpoint, tmp_path / 'fcn.onnx', shape=(64, 96))
    facts = session(written.path).get_modelmeta().custom_metadata_map
    assert json.loads(facts['classes']) == ['road', 'sky']
    assert json.loads(facts['palette']) == palette.tolist()


@pytest.mark.slow
def test_synchronised_normalization_exports_as_plain(tmp_path):
    config, checkpoint = saved('PSPNet, SyncBN', tmp_path)
    written = export_onnx(config, checkpoint, tmp_path / 'psp.onnx', shape=(64, 96))
    assert any(isinstance(module, nn.SyncBatchNorm)
               for module in seasoned(NETWORKS['PSPNet, SyncBN']).modules())  # fmt: skip
    assert written.difference < 1e-4 * written.largest


# ------------------------------------------------------------------------ what is refused


@pytest.mark.slow
@pytest.mark.parametrize('name', ['UPerNet-Swin', 'PSPNet, corners aligned'])
def test_a_network_that_is_tied_to_a_size_asks_for_one(name, tmp_path):
    config, checkpoint = saved(name, tmp_path)
    text = r'cannot be exported to ONNX for every image size: .*--shape HEIGHT WIDTH'
    with pytest.raises(ValueError, match=text):
        export_onnx(config, checkpoint, tmp_path / 'network.onnx')
    assert [path.name for path in tmp_path.iterdir()] == ['plain.pth']


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_not_left_behind(tmp_path, monkeypatch):
    def shifted(network):
        network = copy.deepcopy(network)
        with torch.no_grad():
            network.decode_head.conv_seg.bias[1] += 0.01
        return network

    monkeypatch.setattr(onnx, 'traceable', shifted)
    config, checkpoint = saved('FCN', tmp_path)
    text = r'at 64x96: on images of 1x3x64x96 logits up to \S+ differ by 0\.01 from PyTorch'
    with pytest.raises(ValueError, match=text):
        export_onnx(config, checkpoint, tmp_path / 'network.onnx', shape=(64, 96))
    assert [path.name for path in tmp_path.iterdir()] == ['plain.pth']


def test_a_network_that_onnx_cannot_express_is_named(tmp_path, monkeypatch):
    def grid(self, images):
        return torch.linalg.eigvalsh(images @ images.mT)

    monkeypatch.setattr(Logits, 'forward', grid)
    config, checkpoint = saved('FCN', tmp_path)
    text = 'ResNetV1c with FCNHead cannot be exported to ONNX at 64x96: '
    with pytest.raises(ValueError, match=text):
        export_onnx(config, checkpoint, tmp_path / 'network.onnx', shape=(64, 96))
    assert [path.name for path in tmp_path.iterdir()] == ['plain.pth']


@pytest.mark.parametrize('package', onnx.PACKAGES)
def test_without_the_extra_it_is_named(package, tmp_path, monkeypatch):
    there = onnx.find_spec
    monkeypatch.setattr(onnx, 'find_spec', lambda name: None if name == package else there(name))
    with pytest.raises(ModuleNotFoundError, match=rf'needs {package}: pip install -e "\.\[onnx\]"'):
        export_onnx(Config.fromfile(DEMO), tmp_path / 'x.pth', tmp_path / 'x.onnx')


@pytest.mark.parametrize('shape', [(64,), (64, 0), (1, 2, 3)])
def test_a_size_is_two_numbers(shape, tmp_path):
    with pytest.raises(ValueError, match='expected height and width in pixels, got'):
        export_onnx(Config.fromfile(DEMO), tmp_path / 'x.pth', tmp_path / 'x.onnx', shape=shape)


def test_a_plain_network_has_no_members(tmp_path):
    config, checkpoint = saved('FCN', tmp_path)
    with pytest.raises(ValueError, match="a single EncoderDecoder: it has no member 'teacher'"):
        export_onnx(config, checkpoint, tmp_path / 'x.onnx', 'teacher')


def test_other_weights_are_refused(tmp_path):
    _, checkpoint = saved('FCN', tmp_path)
    config = Config(dict(model=NETWORKS['PSPNet']))
    with pytest.raises(ValueError, match='does not fit EncoderDecoder'):
        export_onnx(config, checkpoint, tmp_path / 'x.onnx')


class Answers:
    """In place of ONNX Runtime's session: answers as a wrong graph would."""

    def __init__(self, answer):
        self.answer = answer

    def run(self, names, inputs):
        (images,) = inputs.values()
        return [self.answer(images)]


def failing(images):
    raise RuntimeError('Non-zero status code returned while running Resize node')


@pytest.mark.parametrize(
    ('answer', 'text'),
    [
        (lambda images: images, None),
        (lambda images: images[:, :1], r'its logits are \(1, 1, 4, 6\), not \(1, 3, 4, 6\)'),
        (lambda images: images + 0.01, r'logits up to \S+ differ by 0\.01 from PyTorch'),
        (lambda images: images * np.nan, r'logits up to \S+ differ by nan from PyTorch'),
        (failing, r'RuntimeError: Non-zero status code returned while running Resize node'),
    ],
)
@pytest.mark.parametrize('shape', [None, (4, 6)])
def test_a_graph_is_compared_with_the_network(shape, answer, text, monkeypatch):
    monkeypatch.setattr(onnxruntime, 'InferenceSession', lambda *args, **kwargs: Answers(answer))
    monkeypatch.setattr(onnx, 'Logits', lambda network: lambda images: images)
    monkeypatch.setattr(onnx, '_name', lambda network: 'ResNet with FCNHead')
    compare = partial(onnx._compare, 'student.onnx', None, [(1, 3, 4, 6), (2, 3, 4, 6)], shape)
    if text is None:
        difference, largest = compare()
        assert difference == 0 < largest
        return
    size = 'at 4x6: on' if shape else 'for every image size: on'
    with pytest.raises(ValueError, match=f'{size} images of 1x3x4x6:? {text}'):
        compare()


@pytest.mark.parametrize(
    ('error', 'reason'),
    [
        (ValueError('no size.\nthe rest'), 'ValueError: no size'),
        (RuntimeError(''), 'RuntimeError: '),
        (
            ValueError('Constraints violated (_height)! For more information'),
            'its code turns the size of the example into constants',
        ),
    ],
)
def test_the_reason_is_one_line(error, reason):
    assert onnx._reason(error) == reason
