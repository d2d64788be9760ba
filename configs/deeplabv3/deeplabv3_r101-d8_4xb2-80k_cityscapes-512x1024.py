_base_ = [
    '../_base_/models/deeplabv3_r101-d8_deeplabv3_r18-d8.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/mmseg_runtime.py',
]
model = dict(_delete_=True, **_base_.model.members.teacher)
model['data_preprocessor'] = dict(_base_.model.data_preprocessor, size=_base_.crop_size)
