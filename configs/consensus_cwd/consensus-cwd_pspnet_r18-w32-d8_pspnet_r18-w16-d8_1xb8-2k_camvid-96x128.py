_base_ = [
    '../_base_/models/pspnet_r18-w32-d8-trained_pspnet_r18-w16-d8_camvid.py',
    '../_base_/datasets/camvid_96x128.py',
    '../_base_/schedules/schedule_2k.py',
    '../_base_/methods/consensus-cwd.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), **_base_.distillation)
optim_wrapper = dict(paramwise_cfg=_base_.paramwise_cfg)
