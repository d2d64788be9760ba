_base_ = './deeplabv3_r101-d8_deeplabv3_r18-d8.py'
classes = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
model = dict(members=dict(student=classes, teacher=classes))
