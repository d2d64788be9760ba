"""Masked features regain a trained teacher's."""

# The weight is for Cityscapes: 2e-5 * 512 * 64 * 128 = 83.9, the published factor of a sum over
# C * h * w, here a mean.
_base_ = '../default_runtime.py'
distillation = dict(
    members=dict(student=dict(), teacher=dict(frozen=True)),
    methods=dict(mgd=dict(type='mmseg_adm.MGD', at='features', mask_ratio=0.75, weight=84.0)),
)
