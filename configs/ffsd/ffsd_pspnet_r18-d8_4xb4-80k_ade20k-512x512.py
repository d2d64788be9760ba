_base_ = [
    '../_base_/models/pspnet_r101-d8_pspnet_r18-d8_ade20k.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/default_runtime.py',
]
# Three of the student of configs/adm; they differ in what they are initialised with.
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    members=dict(
        _delete_=True,
        leader=_base_.model.members.student,
        peer1=_base_.model.members.student,
        peer2=_base_.model.members.student,
    ),
    student='leader',
    methods=dict(ffsd=dict(type='mmseg_adm.FFSD', norm_cfg=_base_.norm_cfg)),
)
optim_wrapper = dict(
    _delete_=True,
    constructor='mmseg_adm.GroupOptimWrapperConstructor',
    # Without modules of its own: all that is left.
    recipe=dict(optimizer=_base_.optimizer),
    self_distillation=dict(
        modules=['methods.ffsd.self_distillation'], optimizer=dict(type='Adam', lr=1e-3)
    ),
)
default_hooks = dict(
    checkpoint=dict(save_best='leader/mIoU'),
    # 1.7 % of 80 000 iterations.
    schedule=dict(schedules=dict(ffsd=dict(ramp='exponential', ramp_iters=1360))),
)
