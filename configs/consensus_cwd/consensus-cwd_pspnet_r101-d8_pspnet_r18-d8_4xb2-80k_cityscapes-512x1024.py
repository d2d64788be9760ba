_base_ = [
    '../_base_/models/pspnet_r101-d8-trained_pspnet_r18-d8.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/methods/consensus-cwd.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), **_base_.distillation)
optim_wrapper = dict(paramwise_cfg=_base_.paramwise_cfg)
