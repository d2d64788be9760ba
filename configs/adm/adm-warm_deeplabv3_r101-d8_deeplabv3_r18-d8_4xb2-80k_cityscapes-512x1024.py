_base_ = [
    '../_base_/models/deeplabv3_r101-d8_deeplabv3_r18-d8.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/default_runtime.py',
]
# Published with the installed MMSegmentation.
teacher_checkpoint = (
    'https://mmassets.onedl.ai/mmsegmentation/v0.5/deeplabv3/deeplabv3_r101-d8_512x1024_80k_cityscapes/'
    'deeplabv3_r101-d8_512x1024_80k_cityscapes_20200606_113503-9e428899.pth'
)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    members=dict(teacher=dict(checkpoint=teacher_checkpoint)),
    methods=dict(adm=dict(type='mmseg_adm.ADM', consensus='channelwise', consensus_weight=5.0)),
)
# What is trained already goes on slowly.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'members.teacher': dict(lr_mult=0.1)}))
