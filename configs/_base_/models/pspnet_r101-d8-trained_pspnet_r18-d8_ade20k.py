# The teacher is the one that is published with MMSegmentation.
_base_ = './pspnet_r101-d8_pspnet_r18-d8_ade20k.py'
teacher_checkpoint = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x512_80k_ade20k/pspnet_r101-d8_512x512_80k_ade20k_20200614_031423-b6e782f0.pth'
model = dict(members=dict(teacher=dict(checkpoint=teacher_checkpoint)))
