"""ADM beside DML, from a trained teacher, which goes on at a tenth of its learning rate."""

_base_ = './adm.py'
paramwise_cfg = dict(custom_keys={'members.teacher': dict(lr_mult=0.1)})
