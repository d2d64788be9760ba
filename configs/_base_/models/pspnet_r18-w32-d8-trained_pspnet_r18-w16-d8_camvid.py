# The teacher is trained alone before: pspnet/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128.py
_base_ = './pspnet_r18-w32-d8_pspnet_r18-w16-d8_camvid.py'
teacher_checkpoint = (
    '{{$TEACHER_CHECKPOINT:work_dirs/pspnet_r18-w32-d8_1xb8-2k_camvid-96x128/iter_2000.pth}}'
)
model = dict(members=dict(teacher=dict(checkpoint=teacher_checkpoint)))
