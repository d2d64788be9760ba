_base_ = [
    '../_base_/models/pspnet_r101-d8_pspnet_r18-d8_ade20k.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/default_runtime.py',
]
# Published with the installed MMSegmentation.
teacher_checkpoint = (
    'https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x512_80k_ade20k/'
    'pspnet_r101-d8_512x512_80k_ade20k_20200614_031423-b6e782f0.pth'
)
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    members=dict(teacher=dict(checkpoint=teacher_checkpoint)),
    # CWD's weight for this data set.
    methods=dict(adm=dict(type='mmseg_adm.ADM', consensus='channelwise', consensus_weight=10.0)),
)
# What is trained already goes on slowly.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'members.teacher': dict(lr_mult=0.1)}))
