_base_ = [
    '../_base_/models/pspnet_r101-d8_pspnet_r18-d8_ade20k.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/methods/adm.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), **_base_.distillation)
