_base_ = [
    '../_base_/models/pspnet_r18-w32-d8_pspnet_r18-w16-d8_camvid.py',
    '../_base_/datasets/camvid_96x128.py',
    '../_base_/schedules/schedule_2k.py',
    '../_base_/default_runtime.py',
]
# The teacher trained alone: configs/pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py
teacher_checkpoint = (
    '{{$TEACHER_CHECKPOINT:work_dirs/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128/iter_2000.pth}}'
)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    members=dict(teacher=dict(checkpoint=teacher_checkpoint)),
    methods=dict(adm=dict(type='mmseg_adm.ADM', consensus='channelwise', consensus_weight=5.0)),
)
# What is trained already goes on slowly.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'members.teacher': dict(lr_mult=0.1)}))
