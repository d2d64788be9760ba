"""Three networks of one architecture: a leader and its peers; there is no teacher."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(leader=dict(), peer1=dict(), peer2=dict()),
    student='leader',
    methods=dict(ffsd=dict(type='mmseg_adm.FFSD')),
)
# Beside the group of all that is left, under the optimizer of the schedule.
optim_groups = dict(
    constructor='mmseg_adm.GroupOptimWrapperConstructor',
    self_distillation=dict(
        modules=['methods.ffsd.self_distillation'], optimizer=dict(type='Adam', lr=1e-3)
    ),
)
default_hooks = dict(
    checkpoint=dict(save_best='leader/mIoU'),
    # 1.7 % of 80 000 iterations.
    schedule=dict(schedules=dict(ffsd=dict(ramp='exponential', ramp_iters=1360))),
)
