"""Student and teacher learn from an ensemble of both, from the start."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(kdcl=dict(type='mmseg_adm.KDCL', ensemble='naive', tau=2.0)),
)
