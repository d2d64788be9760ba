_base_ = [
    '../_base_/models/pspnet_r101-d8_pspnet_r18-d8.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/methods/ffsd.py',
]
model = dict(data_preprocessor=dict(size=_base_.crop_size), **_base_.distillation)
# Three of the student of configs/adm; they differ in what they are initialized with.
model['members'] = dict(
    _delete_=True,
    leader=_base_.model.members.student,
    peer1=_base_.model.members.student,
    peer2=_base_.model.members.student,
)
model['methods']['ffsd']['norm_cfg'] = _base_.norm_cfg
optim_wrapper = dict(_delete_=True, recipe=dict(optimizer=_base_.optimizer), **_base_.optim_groups)
