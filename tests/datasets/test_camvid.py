import math

import cv2
import numpy as np
import pytest
from factory import ROOT, demo_config
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.runner import Runner

from mmseg_adm.datasets import CamVidDataset

CONFIG = ROOT / 'configs/adm/adm_pspnet_r18-w32-d8_pspnet_r18-w16-d8_1xb8-2k_camvid-96x128.py'
SIZES = {'train': 367, 'val': 101}


class Losses(Hook):
    def __init__(self):
        self.outputs = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.outputs.append({name: float(value) for name, value in outputs.items()})


@pytest.fixture(params=SIZES)
def split(request):
    return request.param


@pytest.fixture
def dataset(camvid, split, tmp_path):
    """As the shipped config builds it."""
    dataset = demo_config(camvid, tmp_path, config=CONFIG)[f'{split}_dataloader'].dataset
    return DATASETS.build(dataset.get('dataset', dataset))


def test_pairs(dataset, split):
    assert len(dataset) == SIZES[split]
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        image, labels = (info[key].replace('\\', '/') for key in ('img_path', 'seg_map_path'))
        assert f'/images/{split}/' in image
        assert image.replace('/images/', '/annotations/').replace('.jpg', '.png') == labels


def test_label_values(dataset):
    seen = set()
    for index in np.linspace(0, len(dataset) - 1, 12).astype(int):
        info = dataset.get_data_info(int(index))
        labels = cv2.imread(info['seg_map_path'], cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8
        assert labels.shape == cv2.imread(info['img_path']).shape[:2]
        seen.update(np.unique(labels).tolist())
    assert seen == {*range(11), 255}


def test_classes():
    classes, palette = (CamVidDataset.METAINFO[key] for key in ('classes', 'palette'))
    assert len(classes) == len(set(classes)) == 11
    assert len({tuple(color) for color in palette}) == 11


def test_the_road_lies_below_the_sky(dataset):
    rows = {'Sky': [], 'Road': []}
    for index in (0, len(dataset) // 2, len(dataset) - 1):
        labels = cv2.imread(dataset.get_data_info(index)['seg_map_path'], cv2.IMREAD_UNCHANGED)
        for name, found in rows.items():
            found.append(np.nonzero(labels == dataset.metainfo['classes'].index(name))[0].mean())
    height = labels.shape[0]
    assert np.mean(rows['Sky']) < 0.4 * height
    assert np.mean(rows['Road']) > 0.6 * height


def test_a_training_step_of_the_shipped_config(camvid, tmp_path):
    config = demo_config(camvid, tmp_path, 1, config=CONFIG, train_cfg__val_begin=1000)
    assert config.model.members.student.decode_head.num_classes == 11
    runner = Runner.from_cfg(config)
    losses = Losses()
    runner.register_hook(losses)
    runner.train()
    (logged,) = losses.outputs
    assert all(math.isfinite(value) for value in logged.values())
    for name in ('student', 'teacher'):
        # A fresh network is about as good as a guess.
        assert logged[f'{name}.decode.loss_ce'] == pytest.approx(math.log(11), rel=0.3)
