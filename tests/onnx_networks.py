"""Small networks of the architectures that are exported to ONNX, with weights that matter."""

from __future__ import annotations

from pathlib import Path

import torch
from factory import CLASSES, build, preprocessor, segmentor
from mmengine.config import Config
from torch import nn

BN = dict(type='BN')
RESNET = segmentor(4)['backbone']
SWIN = dict(
    type='SwinTransformer', pretrain_img_size=64, embed_dims=8, window_size=7, mlp_ratio=2,
    depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8], drop_path_rate=0.1,
)  # fmt: skip
MIT = dict(
    type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 2, 4, 5],
    sr_ratios=[8, 4, 2, 1], mlp_ratio=2, drop_path_rate=0.1,
)  # fmt: skip


def stage(modules: int, branches: int, block: str = 'BASIC') -> dict:
    channels = tuple(4 * 2**index for index in range(branches))
    return dict(
        num_modules=modules, num_branches=branches, block=block, num_blocks=(1,) * branches,
        num_channels=channels,
    )  # fmt: skip


HRNET = dict(
    type='HRNet', norm_cfg=BN,
    extra=dict(stage1=stage(1, 1, 'BOTTLENECK'), stage2=stage(1, 2), stage3=stage(1, 3),
               stage4=stage(1, 4)),
)  # fmt: skip


def network(head: str, backbone: dict = RESNET, **options) -> dict:
    defaults = dict(
        in_channels=32, in_index=3, channels=8, dropout_ratio=0.1, num_classes=CLASSES,
        norm_cfg=BN, align_corners=False,
    )  # fmt: skip
    return dict(
        type='EncoderDecoder', data_preprocessor=preprocessor(), backbone=backbone,
        decode_head=dict(type=head, **(defaults | options)), test_cfg=dict(mode='whole'),
    )  # fmt: skip


EVERY_STAGE = dict(in_index=[0, 1, 2, 3], in_channels=[8, 16, 32, 64])
NETWORKS = {
    'FCN': network('FCNHead', num_convs=1),
    'PSPNet': network('PSPHead', pool_scales=(1, 2, 3, 6)),
    'PSPNet, corners aligned': network('PSPHead', pool_scales=(1, 2, 3, 6), align_corners=True),
    'PSPNet, SyncBN': network(
        'PSPHead', RESNET | dict(norm_cfg=dict(type='SyncBN')), norm_cfg=dict(type='SyncBN')
    ),
    'DeepLabV3': network('ASPPHead', dilations=(1, 2, 4)),
    'DeepLabV3+': network(
        'DepthwiseSeparableASPPHead', dilations=(1, 2, 4), c1_in_channels=4, c1_channels=4
    ),
    'UPerNet-Swin': network('UPerHead', SWIN, **EVERY_STAGE),
    'SegFormer': network(
        'SegformerHead', MIT, in_index=[0, 1, 2, 3], in_channels=[8, 16, 32, 40]
    ),
    'HRNet': network(
        'FCNHead', HRNET, in_index=(0, 1, 2, 3), in_channels=[4, 8, 16, 32], channels=60,
        input_transform='resize_concat', kernel_size=1, num_convs=1, concat_input=False,
    ),
}  # fmt: skip


def seasoned(config: dict) -> nn.Module:
    """The network in eval, with statistics and a classifier unlike those it starts with."""
    model = build(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        model.decode_head.conv_seg.weight.normal_()
    return model


def saved(name: str, folder: Path) -> tuple[Config, Path]:
    """A plain config and checkpoint of one of the networks."""
    path = folder / 'plain.pth'
    torch.save({'state_dict': seasoned(NETWORKS[name]).state_dict(), 'meta': {}}, path)
    return Config(dict(model=NETWORKS[name])), path
