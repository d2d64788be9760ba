"""ADM beside DML: student and teacher train together from the start."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(dml=dict(type='mmseg_adm.DML', tau=1.0), adm=dict(type='mmseg_adm.ADM')),
)
