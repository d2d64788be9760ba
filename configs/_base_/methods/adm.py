# Student and teacher start together, beside DML.
_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict()),
    methods=dict(
        dml=dict(type='mmseg_adm.DML', tau=1.0),
        adm=dict(type='mmseg_adm.ADM', at='features', consensus='alignment'),
    ),
)
