"""Images of any number of channels and bits, and a training on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from factory import SIZE, demo_config, segmentor
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmseg.registry import TRANSFORMS

CLASSES = ('soil', 'water', 'trees')


@TRANSFORMS.register_module()
class LoadBands(BaseTransform):
    """An image that is stored as an array (H, W, bands)."""

    def transform(self, results: dict) -> dict:
        image = np.load(results['img_path'])
        return results | dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])


def write_bands(root: Path, bands: int, dtype: type = np.uint8, images: int = 4) -> Path:
    """Draw images, as PNG where it can hold them, and their labels."""
    generator = np.random.default_rng(0)
    for split in ('train', 'val'):
        for index in range(images):
            labels = generator.integers(0, len(CLASSES), SIZE, np.uint8)
            image = generator.integers(0, np.iinfo(dtype).max, (*SIZE, bands), dtype)
            for part in ('images', 'labels'):
                (root / part / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / 'labels' / split / f'{index}.png'), labels)
            path = root / 'images' / split / f'{index}{ending(bands)}'
            if bands > 4:
                np.save(path, image)
            else:
                cv2.imwrite(str(path), image)
    return root


def ending(bands: int) -> str:
    """Of the files."""
    return '.npy' if bands > 4 else '.png'


def bands_dataset(root: Path, split: str, bands: int) -> dict:
    """The config of a data set that :func:`write_bands` has drawn."""
    load = dict(type='LoadImageFromFile', color_type='unchanged')
    return dict(
        type='BaseSegDataset', data_root=str(root), metainfo=dict(classes=CLASSES),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'labels/{split}'),
        img_suffix=ending(bands), reduce_zero_label=False,
        pipeline=[
            dict(type='LoadBands') if bands > 4 else load,
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    )  # fmt: skip


def bands_config(root: Path, work_dir: Path, bands: int, iters: int = 1, **options) -> Config:
    """The demo's training of a pair on them."""
    config = demo_config(root, work_dir, iters=iters, **options)
    config.model.data_preprocessor = dict(
        type='SegDataPreProcessor', size=SIZE, seg_pad_val=255, bgr_to_rgb=True
    )
    for name, width in (('student', 4), ('teacher', 8)):
        config.model.members[name] = segmentor(width, classes=len(CLASSES))
        config.model.members[name]['backbone']['in_channels'] = bands
    config.train_dataloader.dataset.dataset = bands_dataset(root, 'train', bands)
    for loader in (config.val_dataloader, config.test_dataloader):
        loader.dataset = bands_dataset(root, 'val', bands)
    return config
