# The same networks with the head of DeepLabV3.
_base_ = './pspnet_r101-d8_pspnet_r18-d8.py'


def aspp_head(in_channels, channels):
    return dict(
        _delete_=True,
        type='ASPPHead',
        in_channels=in_channels,
        in_index=3,
        channels=channels,
        dilations=(1, 12, 24, 36),
        dropout_ratio=0.1,
        num_classes=19,
        norm_cfg=_base_.norm_cfg,
        align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
    )


model = dict(
    members=dict(
        student=dict(decode_head=aspp_head(512, 128)),
        teacher=dict(decode_head=aspp_head(2048, 512)),
    ),
)
