_base_ = [
    '../_base_/models/pspnet_r18-w32-d8_pspnet_r18-w16-d8.py',
    '../_base_/datasets/synthetic_city_96x128.py',
    '../_base_/schedules/schedule_demo.py',
    '../_base_/mmseg_runtime.py',
]
# The student of configs/adm, alone: the same network, data and schedule, as plain mmseg.
model = dict(
    _delete_=True,
    data_preprocessor=dict(size=_base_.crop_size, **_base_.model.data_preprocessor),
    **_base_.model.members.student,
)
