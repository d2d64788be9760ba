_base_ = './pspnet_r18-w32-d8_pspnet_r18-w16-d8.py'
classes = dict(decode_head=dict(num_classes=11))
model = dict(members=dict(student=classes, teacher=classes))
