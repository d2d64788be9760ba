"""Images that are not three channels of 8 bits, from the first iteration to what is left of it."""

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from bands import bands_config, write_bands
from factory import CLASSES, SIZE
from mmengine.config import Config
from mmengine.registry import DATASETS
from onnx_networks import RESNET, network, seasoned

from mmseg_adm.commands.train import train
from mmseg_adm.datasets.checks import check_images
from mmseg_adm.export.onnx import export_onnx

pytestmark = pytest.mark.core


@pytest.mark.slow
@pytest.mark.parametrize(
    ('bands', 'dtype'),
    [(1, np.uint8), (4, np.uint16), (25, np.uint8)],
    ids=lambda value: str(getattr(value, '__name__', value)),
)
def test_a_training_passes_its_first_validation_and_checkpoint(bands, dtype, tmp_path):
    root = write_bands(tmp_path / 'data', bands, dtype)
    config = bands_config(root, tmp_path / 'run', bands)
    config.default_hooks.preflight.enabled = True
    runner = train(config)
    assert runner.iter == 1
    assert 0 <= runner.message_hub.get_scalar('val/student/mIoU').current() <= 100
    assert (tmp_path / 'run/student_iter_1.pth').is_file()
    (picture,) = (tmp_path / 'run/pictures').iterdir()
    assert picture.name == 'consensus_0_iter_1.png'
    (log,) = (tmp_path / 'run').glob('*/*.log')
    assert 'No picture of image' not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize('bands', [5])
def test_a_graph_takes_as_many_channels_as_its_network(bands, tmp_path):
    model = network('FCNHead', RESNET | dict(in_channels=bands), num_convs=1)
    # Whose mean, if it has one, is of one channel or of three.
    model['data_preprocessor'] = dict(type='SegDataPreProcessor', bgr_to_rgb=True)
    torch.save(dict(state_dict=seasoned(model).state_dict()), tmp_path / 'plain.pth')
    config = Config(dict(model=model))
    written = export_onnx(config, tmp_path / 'plain.pth', tmp_path / 's.onnx', shape=SIZE)
    assert written.checked == ((1, bands, *SIZE), (3, bands, *SIZE))
    session = onnxruntime.InferenceSession(written.path, providers=['CPUExecutionProvider'])
    assert session.get_inputs()[0].shape == ['batch', bands, *SIZE]
    images = np.random.default_rng(0).normal(size=(2, bands, *SIZE)).astype('f4')
    assert session.run(None, {'input': images})[0].shape == (2, CLASSES, *SIZE)
    # mmseg swaps the channels of images of three alone.
    assert session.get_modelmeta().custom_metadata_map['bgr_to_rgb'] == 'false'


def test_images_of_different_numbers_of_channels_are_named(tmp_path):
    root = write_bands(tmp_path / 'data', 4)
    paths = sorted((root / 'images/train').iterdir())
    cv2.imwrite(str(paths[1]), np.zeros((*SIZE, 3), np.uint8))
    config = bands_config(root, tmp_path, 4)
    dataset = DATASETS.build(config.train_dataloader.dataset.dataset)
    cv2.imwrite(str(paths[2]), np.zeros(SIZE, np.uint8))
    text = f'number of channels: {paths[0]} has 4 and {paths[1]} has 3'
    with pytest.raises(ValueError, match=text):
        check_images(dataset, 8)
    # A gray one among those of three channels is spread over the three of mmseg's mean.
    cv2.imwrite(str(paths[0]), np.zeros((*SIZE, 3), np.uint8))
    cv2.imwrite(str(paths[3]), np.zeros((*SIZE, 3), np.uint8))
    check_images(dataset, 8)
