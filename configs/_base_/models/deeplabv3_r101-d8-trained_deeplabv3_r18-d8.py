# The teacher is the one that is published with MMSegmentation.
_base_ = './deeplabv3_r101-d8_deeplabv3_r18-d8.py'
teacher_checkpoint = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/deeplabv3/deeplabv3_r101-d8_512x1024_80k_cityscapes/deeplabv3_r101-d8_512x1024_80k_cityscapes_20200606_113503-9e428899.pth'
model = dict(members=dict(teacher=dict(checkpoint=teacher_checkpoint)))
