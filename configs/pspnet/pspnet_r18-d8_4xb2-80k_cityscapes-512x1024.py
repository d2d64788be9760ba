_base_ = [
    '../_base_/models/pspnet_r101-d8_pspnet_r18-d8.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/mmseg_runtime.py',
]
# The student of configs/adm, alone: the same network, data and schedule, as plain mmseg.
model = dict(
    _delete_=True,
    data_preprocessor=dict(size=_base_.crop_size, **_base_.model.data_preprocessor),
    **_base_.model.members.student,
)
