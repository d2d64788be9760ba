_base_ = ['./deeplabv3plus_efficientnet-lite.py', './ccp_128x96.py']
model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(
        num_classes=16,
        # As for CamVid.
        loss_decode=dict(
            class_weight=[0.56, 2.86, 4.25, 2.32, 1.65, 1.71, 1.77, 2.57, 3.37, 4.66, 3.55, 5.07,
                          2.69, 8.07, 10.64, 7.9]
        ),
    ),
)  # fmt: skip
