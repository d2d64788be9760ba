"""Small networks, batches and configs that the tests share."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

ROOT = Path(__file__).resolve().parents[1]
CLASSES = 5
SIZE = (32, 48)
PAIR = 'pspnet_r18-w32-d8_pspnet_r18-w16-d8'
DEMO = ROOT / f'configs/adm/adm_{PAIR}_1xb8-demo_synthetic-city-96x128.py'


def segmentor(
    width: int = 4,
    classes: int = CLASSES,
    norm: str = 'BN',
    dropout: float = 0.1,
    auxiliary: bool = False,
    **options,
) -> dict:
    """Config of a PSPNet of ResNet-18 whose stages are ``width`` to ``8 * width`` wide."""
    norm_cfg = dict(type=norm, num_groups=2) if norm == 'GN' else dict(type=norm)
    loss = dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    config = dict(
        type='EncoderDecoder',
        backbone=dict(
            type='ResNetV1c', depth=18, base_channels=width, stem_channels=width, num_stages=4,
            out_indices=(0, 1, 2, 3), dilations=(1, 1, 2, 4), strides=(1, 2, 1, 1),
            norm_cfg=norm_cfg, norm_eval=False, style='pytorch', contract_dilation=True,
        ),
        decode_head=dict(
            type='PSPHead', in_channels=8 * width, in_index=3, channels=2 * width,
            pool_scales=(1, 2), dropout_ratio=dropout, num_classes=classes, norm_cfg=norm_cfg,
            align_corners=False, loss_decode=loss,
        ),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )  # fmt: skip
    if auxiliary:
        config['auxiliary_head'] = dict(
            type='FCNHead', in_channels=4 * width, in_index=2, channels=2 * width, num_convs=1,
            concat_input=False, dropout_ratio=dropout, num_classes=classes, norm_cfg=norm_cfg,
            align_corners=False, loss_decode=dict(loss, loss_weight=0.4),
        )  # fmt: skip
    return config | options


def preprocessor(size: tuple[int, int] = SIZE) -> dict:
    """Config of the shared preprocessor."""
    return dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=size,
    )  # fmt: skip


def distiller_config(methods: dict | None = None, **options) -> dict:
    """A distiller of a narrow student and a wider teacher; ``options`` replace its keys."""
    config = dict(
        type='mmseg_adm.KnowledgeDistiller',
        data_preprocessor=preprocessor(),
        members=dict(student=segmentor(4), teacher=segmentor(8)),
        methods=methods or {},
    )
    return copy.deepcopy(config | options)


def build(config: dict, seed: int = 0) -> torch.nn.Module:
    """Build a model and initialize its weights."""
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    model = MODELS.build(copy.deepcopy(config))
    model.init_weights()
    return model


def save_segmentor(path: Path, config: dict, seed: int = 1) -> str:
    """Write the checkpoint of a freshly initialized plain segmentor."""
    torch.save({'state_dict': build(config, seed).state_dict(), 'meta': {}}, path)
    return str(path)


def raw_batch(
    images: int = 2, size: tuple[int, int] = SIZE, classes: int = CLASSES, seed: int = 0
) -> dict:
    """A batch as a data loader yields it; a tenth of the labels is ignored."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images, 1, *size), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    inputs = torch.randint(0, 256, (images, 3, *size), generator=generator, dtype=torch.uint8)
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
    return dict(
        inputs=list(inputs),
        data_samples=[SegDataSample(gt_sem_seg=PixelData(data=label), metainfo=dict(meta))
                      for label in labels],
    )  # fmt: skip


def losses_of(model: torch.nn.Module, batch: dict | None = None) -> dict[str, torch.Tensor]:
    """Training losses of one batch."""
    data = model.data_preprocessor(batch or raw_batch(), True)
    return model(**data, mode='loss')


def demo_config(
    data_root: str | Path,
    work_dir: str | Path,
    iters: int = 4,
    config: Path = DEMO,
    workers: int = 0,
    **options,
) -> Config:
    """A shipped config on drawn data, shrunk: narrow networks, batches of two, few iterations.

    ``options`` are overrides with dots for dots, as ``--cfg-options`` takes them, written
    with two underscores.
    """
    config = Config.fromfile(config)
    overrides = {
        'work_dir': str(work_dir),
        'train_cfg.max_iters': iters,
        'train_cfg.val_interval': iters,
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': workers,
        'train_dataloader.persistent_workers': workers > 0,
        'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False,
        'train_dataloader.dataset.dataset.data_root': str(data_root),
        'val_dataloader.dataset.data_root': str(data_root),
        'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False,
        'test_dataloader.dataset.data_root': str(data_root),
        'default_hooks.checkpoint.interval': iters,
        'default_hooks.logger.interval': 1,
    }
    config.merge_from_dict(overrides)
    if 'preflight' in config.default_hooks:
        # It has tests of its own, and the teachers here know nothing.
        config.default_hooks.preflight.enabled = False
    for member, width in (('student', 4), ('teacher', 8)):
        if member in config.model.get('members', {}):
            shrink(config.model.members[member], width)
    config.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return config


def quick_in(cases: Iterable, *quick: object) -> list:
    """The cases as parameters; all but those of ``quick`` are slow."""
    return [pytest.param(case, marks=[] if case in quick else [pytest.mark.slow]) for case in cases]


def narrow(network: dict, width: int) -> None:
    """Narrow a ResNet segmentor config in place."""
    network['backbone'].update(base_channels=width, stem_channels=width, depth=18, init_cfg=None)
    network['decode_head'].update(in_channels=8 * width, channels=2 * width)
    if network.get('auxiliary_head'):
        network['auxiliary_head'].update(in_channels=4 * width, channels=width)


def shrink(network: dict, width: int) -> None:
    """Narrow it, and leave it two stages."""
    narrow(network, width)
    network['backbone'].update(num_stages=2, out_indices=(0, 1), strides=(1, 2), dilations=(1, 1))
    network['decode_head'].update(in_channels=2 * width, in_index=1, channels=2 * width)
    if network.get('auxiliary_head'):
        network['auxiliary_head'].update(in_channels=width, in_index=0, channels=width)


def differences(first: object, second: object, path: str = '') -> list[str]:
    """Paths of all that is not equal to the bit in two nested states."""
    if isinstance(first, torch.Tensor):
        same = first.dtype == second.dtype and torch.equal(first, second)
        return [] if same else [path]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [path]
        pairs = [(key, first[key], second[key]) for key in first]
    elif isinstance(first, (list, tuple)):
        if len(first) != len(second):
            return [path]
        pairs = list(zip(range(len(first)), first, second, strict=True))
    else:
        return [] if first == second else [path]
    return [found for key, one, other in pairs
            for found in differences(one, other, f'{path}/{key}')]  # fmt: skip
