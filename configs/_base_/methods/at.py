"""Maps of attention, from a trained teacher."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(at=dict(type='mmseg_adm.AT', at='features', weight=1.0)),
)
