# The teacher is the one that is published with MMSegmentation.
_base_ = './deeplabv3_r101-d8_deeplabv3_r18-d8_ade20k.py'
teacher_checkpoint = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/deeplabv3/deeplabv3_r101-d8_512x512_80k_ade20k/deeplabv3_r101-d8_512x512_80k_ade20k_20200615_021256-d89c7fa4.pth'
model = dict(members=dict(teacher=dict(checkpoint=teacher_checkpoint)))
