# Up to the last stage of stride 16: 112 channels.
_base_ = '../_base_/deeplabv3plus_efficientnet-lite_ccp-128x96.py'
model = dict(
    backbone=dict(arch='lite0', out_indices=(1, 4)),
    decode_head=dict(in_channels=112, channels=48, c1_in_channels=24, c1_channels=12),
)
