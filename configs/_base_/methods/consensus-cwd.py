"""CWD weighted by the consensus of ADM, from a trained teacher, which goes on slowly."""

# The weight is CWD's for Cityscapes.
_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(
        consensus_cwd=dict(
            type='mmseg_adm.ADM',
            consensus='channelwise',
            divergence='weighting',
            consensus_weight=5.0,
        )
    ),
)
paramwise_cfg = dict(custom_keys={'members.teacher': dict(lr_mult=0.1)})
