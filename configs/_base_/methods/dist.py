"""Correlations between and within classes, from a trained teacher."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(dist=dict(type='mmseg_adm.DIST', tau=1.0, inter_weight=1.0, intra_weight=1.0)),
)
