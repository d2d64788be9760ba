# The teacher is the one that is published with MMSegmentation.
_base_ = './pspnet_r101-d8_pspnet_r18-d8.py'
teacher_checkpoint = 'https://mmassets.onedl.ai/mmsegmentation/v0.5/pspnet/pspnet_r101-d8_512x1024_80k_cityscapes/pspnet_r101-d8_512x1024_80k_cityscapes_20200606_112211-e1e1100f.pth'
model = dict(members=dict(teacher=dict(checkpoint=teacher_checkpoint)))
