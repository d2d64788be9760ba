"""ADM's consensus beside KD, from a trained teacher, which stays as it is."""

_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(
        kd=dict(type='mmseg_adm.KD', tau=1.0), adm=dict(type='mmseg_adm.ADM', divergence=None)
    ),
)
