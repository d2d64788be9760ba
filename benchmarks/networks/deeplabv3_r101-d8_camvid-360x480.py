_base_ = [
    'mmseg::_base_/models/deeplabv3_r50-d8.py',
    '../../configs/_base_/datasets/camvid_360x480.py',
    '../../configs/_base_/schedules/schedule_80k.py',
    '../../configs/_base_/mmseg_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained='open-mmlab://resnet101_v1c',
    backbone=dict(depth=101),
    decode_head=dict(num_classes=11),
    auxiliary_head=dict(num_classes=11),
)
