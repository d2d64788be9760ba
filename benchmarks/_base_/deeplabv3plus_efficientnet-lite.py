# DeepLabV3+ on EfficientNet-Lite (../efficientnet_lite.py) with ImageNet weights, and its schedule.
_base_ = '../../configs/_base_/mmseg_runtime.py'
custom_imports = dict(imports=['efficientnet_lite'])
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.0, 127.0, 127.0],
        std=[128.0, 128.0, 128.0],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    # The stem and two stages keep their ImageNet weights, and all layers their statistics.
    backbone=dict(type='EfficientNetLite', frozen_stages=3, norm_eval=True),
    decode_head=dict(
        type='DepthwiseSeparableASPPHead',
        in_index=1,
        dilations=(1, 3, 6),
        dropout_ratio=0.1,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss'),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01, fused=True)
)
param_scheduler = [dict(type='PolyLR', eta_min=1e-5, power=0.9, begin=0, end=5000, by_epoch=False)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=5000, val_interval=625)
custom_hooks = [dict(type='mmseg_adm.ChannelsLastHook')]
