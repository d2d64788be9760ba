_base_ = [
    '../_base_/models/deeplabv3_r101-d8_deeplabv3_r18-d8_ade20k.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/schedule_80k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    methods=dict(
        dml=dict(type='mmseg_adm.DML', tau=1.0),
        adm=dict(type='mmseg_adm.ADM', at='features', consensus='alignment'),
    ),
)
