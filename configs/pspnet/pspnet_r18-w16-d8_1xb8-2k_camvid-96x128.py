_base_ = [
    '../_base_/models/pspnet_r18-w32-d8_pspnet_r18-w16-d8_camvid.py',
    '../_base_/datasets/camvid_96x128.py',
    '../_base_/schedules/schedule_2k.py',
    '../_base_/mmseg_runtime.py',
]
model = dict(_delete_=True, **_base_.model.members.student)
model['data_preprocessor'] = dict(_base_.model.data_preprocessor, size=_base_.crop_size)
