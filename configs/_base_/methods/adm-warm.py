# The teacher is trained already and goes on slowly. The weight is CWD's for Cityscapes.
_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(adm=dict(type='mmseg_adm.ADM', consensus='channelwise', consensus_weight=5.0)),
)
paramwise_cfg = dict(custom_keys={'members.teacher': dict(lr_mult=0.1)})
