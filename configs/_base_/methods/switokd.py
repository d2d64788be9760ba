"""As DML, with a teacher that waits for the student."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(switokd=dict(type='mmseg_adm.SwitOKD', tau=1.0)),
)
