"""Similarities of regions, from a trained teacher, beside KD."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(
        kd=dict(type='mmseg_adm.KD', tau=1.0, weight=10.0),
        skd=dict(type='mmseg_adm.SKD', at='features', grid=(2, 2), weight=10.0),
    ),
)
