"""Student and teacher learn from each other, from the start."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(dml=dict(type='mmseg_adm.DML', tau=1.0)),
)
