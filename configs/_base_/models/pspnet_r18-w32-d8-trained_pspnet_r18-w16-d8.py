# The teacher is trained alone before: pspnet/pspnet_r18-w32-d8_1xb8-demo_synthetic-city-96x128.py
_base_ = './pspnet_r18-w32-d8_pspnet_r18-w16-d8.py'
teacher_checkpoint = '{{$TEACHER_CHECKPOINT:work_dirs/pspnet_r18-w32-d8_1xb8-demo_synthetic-city-96x128/iter_600.pth}}'  # noqa: E501
model = dict(members=dict(teacher=dict(checkpoint=teacher_checkpoint)))
