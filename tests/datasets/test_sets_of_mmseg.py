"""The data sets that mmseg ships, drawn small in their own layout: checked, and a step trained."""

import inspect

import cv2
import mmseg.datasets
import numpy as np
import pytest
import torch
from factory import build, quick_in
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner
from PIL import Image
from plain_configs import other, pair, plain

from mmseg_adm.datasets.checks import (
    check_classes,
    check_data_paths,
    check_images,
    check_labels,
    plain_datasets,
)

pytestmark = pytest.mark.core

SIZE = (32, 48)
IMAGES = 3
# With another kind of input (pairs of images, depth, bands as arrays), or read from elsewhere.
OTHERS = ('DSDLSegDataset', 'DecathlonDataset', 'HSIDrive20Dataset', 'LEVIRCDDataset', 'NYUDataset')
SETS = sorted(
    name for name, kind in vars(mmseg.datasets).items()
    if inspect.isclass(kind) and issubclass(kind, mmseg.datasets.BaseSegDataset)
    and kind.METAINFO.get('classes') and name not in OTHERS
)  # fmt: skip


def defaults_of(kind):
    """What the class's own constructor takes, or what it hands on, by default."""
    found = {}
    for base in reversed(kind.__mro__):
        if '__init__' in vars(base):
            parameters = inspect.signature(base.__init__).parameters.values()
            found |= {each.name: each.default for each in parameters}
    return found


@pytest.fixture
def draw(tmp_path):
    """Writes images and labels as a class wants them; returns the options of the data set."""

    def write(kind):
        options, classes = defaults_of(kind), len(kind.METAINFO['classes'])
        endings = options['img_suffix'], options['seg_map_suffix']
        if kind.__name__ == 'REFUGEDataset':
            endings = '.png', '.png'  # fixed in its constructor
        first = int(bool(options['reduce_zero_label']))
        numbers = np.random.default_rng(0)
        for index in range(IMAGES):
            for folder, ending in zip(('img', 'ann'), endings, strict=True):
                path = tmp_path / folder / f'set_{index}{ending}'
                path.parent.mkdir(exist_ok=True)
                if folder == 'img':
                    cv2.imwrite(str(path), numbers.integers(256, size=(*SIZE, 3), dtype=np.uint8))
                    continue
                # Zero is "not labeled" where the class says so.
                labels = numbers.integers(0, classes + first, size=SIZE).astype(np.uint8)
                image = Image.fromarray(labels)
                if 'VOC' in kind.__name__:
                    image.putpalette([value for gray in range(256) for value in (gray, 0, gray)])
                image.save(path)
        given = dict(data_root=str(tmp_path), data_prefix=dict(img_path='img', seg_map_path='ann'))
        if 'ann_file' in inspect.signature(kind.__init__).parameters:
            (tmp_path / 'list.txt').write_text('\n'.join(f'set_{i}' for i in range(IMAGES)))
            given['ann_file'] = 'list.txt'
        return given

    return write


def test_what_is_drawn():
    named = ('LoveDA', 'Potsdam', 'BDD100K', 'Synapse', 'PascalVOC', 'REFUGE')
    assert {f'{name}Dataset' for name in named} < set(SETS)
    assert {'MapillaryDataset_v1', 'MapillaryDataset_v2'} < set(SETS)
    assert len(SETS) > 18


@pytest.mark.parametrize('name', quick_in(SETS, 'ADE20KDataset', 'PascalVOCDataset'))
def test_a_set_is_checked_and_trains_a_step(name, draw):
    kind = getattr(mmseg.datasets, name)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
                dict(type='PackSegInputs')]  # fmt: skip
    dataset = dict(type=name, pipeline=pipeline, **draw(kind))
    student, teacher = plain(size=SIZE), other()
    student.train_dataloader.dataset = dataset
    for config in (student, teacher):
        config.model.decode_head.num_classes = len(kind.METAINFO['classes'])
    paired = pair(student, teacher, 'dml')
    check_data_paths(paired, ('train',))

    loader = Runner.build_dataloader(paired.train_dataloader, seed=0)
    model = build(paired.model).train()
    (found,) = plain_datasets(loader.dataset)
    assert len(found) == IMAGES
    check_classes(model, found)
    check_images(found, IMAGES)
    check_labels(found, IMAGES)

    batch = next(iter(loader))
    labels = torch.stack([each.gt_sem_seg.data for each in batch['data_samples']])
    ignored = (labels == 255).any().item()
    assert ignored == bool(found.reduce_zero_label)
    assert labels[labels != 255].max() < len(kind.METAINFO['classes'])
    logs = model.train_step(batch, build_optim_wrapper(model, paired.optim_wrapper))
    assert logs['loss'].isfinite()
    assert logs['student.decode.loss_ce'] > 0
