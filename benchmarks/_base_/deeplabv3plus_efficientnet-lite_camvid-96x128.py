_base_ = [
    './deeplabv3plus_efficientnet-lite.py',
    '../../configs/_base_/datasets/camvid_96x128.py',
]
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(
        num_classes=11,
        # Roots of median-frequency weights over the training split, of mean one over its pixels.
        loss_decode=dict(
            class_weight=[0.87, 0.74, 3.6, 0.64, 1.64, 1.07, 3.23, 2.31, 1.46, 4.16, 4.88]
        ),
    ),
)
train_dataloader = dict(batch_size=4)
