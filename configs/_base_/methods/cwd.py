"""Where each class responds, from a trained teacher: the usual baseline."""

# The weight is the published one for Cityscapes.
_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(cwd=dict(type='mmseg_adm.CWD', at='logits', tau=1.0, weight=5.0)),
)
