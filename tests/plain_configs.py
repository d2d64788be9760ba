"""Configs of plain networks, which the tests pair."""

import copy

from factory import segmentor
from mmengine.config import Config

import mmseg_adm

PSP = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
SEGFORMER = 'mmseg::segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py'
GROUPS = 'mmseg_adm.GroupOptimWrapperConstructor'
MEAN = [123.675, 116.28, 103.53]
SGD = dict(type='SGD', lr=0.01, momentum=0.9)
ADAMW = dict(type='AdamW', lr=6e-5, weight_decay=0.01)


def pair(student, teacher, method='adm', *others, **options):
    return mmseg_adm.pair(student, teacher, method, *others, **options)


def poly(end=100, begin=0, **options):
    return dict(type='PolyLR', power=0.9, begin=begin, end=end, by_epoch=False) | options


def warm_up(end):
    return dict(type='LinearLR', start_factor=1e-6, begin=0, end=end, by_epoch=False)


def loader(root, sampler='InfiniteSampler', crop=(32, 48)):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='RandomCrop', crop_size=crop)]
    dataset = dict(type='CityscapesDataset', data_root=root, pipeline=pipeline)
    return dict(batch_size=2, dataset=dataset, sampler=dict(type=sampler, shuffle=True))


def plain(root='data/own', iters=100, width=4, size=(32, 48), mean=None, **options) -> Config:
    """The config of one small network, as mmseg writes them."""
    normalization = dict(mean=mean or MEAN, std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
    preprocessor = dict(type='SegDataPreProcessor', pad_val=0, seg_pad_val=255, size=size)
    config = dict(
        default_scope='mmseg',
        model=dict(segmentor(width), data_preprocessor=preprocessor | normalization),
        train_dataloader=loader(root, crop=size),
        val_dataloader=loader(root, 'DefaultSampler'),
        test_dataloader=loader(root, 'DefaultSampler'),
        val_evaluator=dict(type='IoUMetric', iou_metrics=[root]),
        test_evaluator=dict(type='IoUMetric', iou_metrics=[root]),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters, val_interval=10),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        optim_wrapper=dict(type='OptimWrapper', optimizer=SGD, clip_grad=None),
        param_scheduler=[poly(iters)],
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=7, save_best='mIoU'),
        ),
    )
    return Config(copy.deepcopy(config | options))


def other(**options) -> Config:
    """Another network, with everything else too."""
    options = dict(optim_wrapper=dict(type='OptimWrapper', optimizer=ADAMW)) | options
    return plain('data/other', 200, 8, (64, 64), [127.5] * 3, **options)
