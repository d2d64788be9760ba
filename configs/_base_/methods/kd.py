"""Predictions per pixel, from a trained teacher."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(kd=dict(type='mmseg_adm.KD', tau=1.0)),
)
