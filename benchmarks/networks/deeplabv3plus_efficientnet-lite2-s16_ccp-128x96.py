# Up to the last stage of stride 16: 120 channels.
_base_ = '../_base_/deeplabv3plus_efficientnet-lite_ccp-128x96.py'
model = dict(
    backbone=dict(arch='lite2', out_indices=(1, 4)),
    decode_head=dict(in_channels=120, channels=128, c1_in_channels=24, c1_channels=48),
)
