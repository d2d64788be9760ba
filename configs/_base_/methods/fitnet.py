"""Features, from a trained teacher."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(fitnet=dict(type='mmseg_adm.FitNet', at='features', weight=1.0)),
)
