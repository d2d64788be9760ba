"""A frozen teacher with a last stage and a decode head that train: SOKD's bridge."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmseg.models.backbones import MixVisionTransformer, MobileNetV2, ResNet, SwinTransformer
from mmseg.registry import MODELS as MMSEG_MODELS
from torch import nn

from mmseg_adm.checkpoint import drop_pretrained
from mmseg_adm.config.kinds import bridged_teacher
from mmseg_adm.config.members import MEMBER_OPTIONS

from .members import FrozenMember
from .shared import SharedModule
from .taps import find_module, probe_images

OPTIONS = ('type', 'teacher', 'split', 'init')


def plain_bridge(config: Mapping, members: Mapping[str, Mapping]) -> ConfigDict:
    """The plain segmentor config of a bridge: its teacher's, without auxiliary heads."""
    plain = ConfigDict(copy.deepcopy(members[bridged_teacher(config)]))
    for option in (*MEMBER_OPTIONS, 'auxiliary_head'):
        plain.pop(option, None)
    return plain


def build_bridge(
    name: str,
    config: Mapping,
    members: Mapping[str, Mapping],
    frozen: Mapping[str, FrozenMember],
) -> nn.Module:
    """Build a bridge: a segmentor whose backbone is the frozen teacher's up to the split.

    Args:
        name: The member's name, for messages.
        config: ``teacher``, the frozen member that it extends; ``split``, the path within the
            backbone of the first module that trains, by default the last stage; ``init``,
            ``'fresh'`` (random, as in the paper's code) or ``'teacher'`` (a copy).
        members: All member configs.
        frozen: The frozen members.

    Raises:
        ValueError: If the teacher is not frozen, an option is wrong, or the backbone cannot be
            split there.
    """
    try:
        _check(config)
        teacher = bridged_teacher(config)
        if teacher not in frozen:
            raise ValueError(
                f"as SOKD's bridge it extends '{teacher}', which must be a frozen member with a "
                'checkpoint: '
                f"model.members.{teacher}=dict(frozen=True, checkpoint='...')"
            )
        if frozen[teacher].dtype is not None:
            raise ValueError(
                f"it goes on in float32 from what '{teacher}' computes in {frozen[teacher].dtype}: "
                f'remove model.members.{teacher}.dtype'
            )
        source: Any = frozen[teacher].network
        split = config.get('split') or _last_stage(source.backbone)
        plain = plain_bridge(config, members)
        plain.pop('data_preprocessor', None)
        bridge = _copy_of(source, plain, config.get('init', 'fresh'))
        _share(bridge, source, split)
        _check_equal(bridge, source, split)
    except ValueError as error:
        raise ValueError(f"member '{name}' (TeacherBridge): {error}") from None
    bridge.is_init = True
    # What a method that needs a bridge can know it by.
    bridge.bridge_of = teacher
    return bridge


def _check(config: Mapping) -> None:
    for option in config:
        if option not in OPTIONS:
            raise ValueError(f"no option '{option}'. Its options: {', '.join(OPTIONS[1:])}")
    if config.get('init', 'fresh') not in ('fresh', 'teacher'):
        raise ValueError(f"init must be 'fresh' or 'teacher', got {config.get('init')!r}")


def _last_stage(backbone: Any) -> str:
    """Where the stage after the second to last output begins."""
    if isinstance(backbone, ResNet):
        return backbone.res_layers[-1]
    if isinstance(backbone, MobileNetV2):
        # Several layers make a stage: those after the second to last that is put out.
        *_, before, _ = (-1, *sorted(backbone.out_indices))
        return backbone.layers[before + 1]
    if isinstance(backbone, MixVisionTransformer):
        return f'layers.{len(backbone.layers) - 1}'
    if isinstance(backbone, SwinTransformer):
        return f'stages.{len(backbone.stages) - 1}'
    raise ValueError(
        f'where the last stage of a {type(backbone).__name__} begins is not known. Set split to '
        f'one of its modules ({", ".join(name for name, _ in backbone.named_children())}, or one '
        'inside them), take a teacher with a ResNet, MobileNetV2, MixVisionTransformer or '
        'SwinTransformer, or an offline method that needs no bridge (mmseg_adm.KD, CWD)'
    )


def _copy_of(source: nn.Module, plain: ConfigDict, init: str) -> Any:
    if init == 'fresh':
        drop_pretrained(plain)
    bridge = MMSEG_MODELS.build(plain)
    if init == 'fresh':
        bridge.init_weights()
    else:
        own = bridge.state_dict()
        bridge.load_state_dict({k: v for k, v in source.state_dict().items() if k in own})
    return bridge


def _share(bridge: Any, source: Any, split: str) -> None:
    """Let ``bridge`` use the modules that the teacher's backbone calls before the split."""
    before = _calls_before(source.backbone, split)
    for path in before:
        parent, _, child = path.rpartition('.')
        holder = find_module(bridge.backbone, parent) if parent else bridge.backbone
        holder._modules[child] = SharedModule(find_module(source.backbone, path))
    for path, parameter in bridge.backbone.named_parameters(recurse=False):
        # What the backbone holds itself (position embeddings) comes before the split.
        parameter.requires_grad_(False).copy_(source.backbone.get_parameter(path))


def _calls_before(backbone: nn.Module, split: str) -> list[str]:
    """Paths of the modules that the backbone's forward calls itself, in order, up to the split.

    Raises:
        ValueError: If it calls nothing at or below the split, or something on both sides of it.
    """
    calls: list[str] = []
    depth = 0

    def enter(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple) -> None:
            nonlocal depth
            if depth == 0:
                calls.append(path)
            depth += 1

        return hook

    def leave(module: nn.Module, inputs: tuple, output: Any) -> None:
        nonlocal depth
        depth -= 1

    handles = []
    for path, module in backbone.named_modules():
        if path:
            handles.append(module.register_forward_pre_hook(enter(path)))
            handles.append(module.register_forward_hook(leave))
    try:
        with torch.no_grad():
            backbone(probe_images(backbone))
    finally:
        for handle in handles:
            handle.remove()
    for index, path in enumerate(calls):
        if f'{path}.'.startswith(f'{split}.'):
            if both := sorted(set(calls[:index]) & set(calls[index:])):
                raise ValueError(
                    f"{type(backbone).__name__} cannot be split at '{split}': it calls "
                    f'{", ".join(both)} both before and after it'
                )
            return list(dict.fromkeys(calls[:index]))
    raise ValueError(
        f"{type(backbone).__name__} calls no module at '{split}' itself. Set split to one of: "
        f'{", ".join(dict.fromkeys(calls))}; or take an offline method that needs no bridge '
        '(mmseg_adm.KD, CWD)'
    )


def _check_equal(bridge: Any, source: Any, split: str) -> None:
    """With the teacher's weights the bridge must compute what the teacher computes."""
    own = copy.deepcopy(bridge.state_dict())
    weights = source.state_dict()
    shared = [module for module in bridge.modules() if isinstance(module, SharedModule)]
    was_training = bridge.training
    images = probe_images(source)
    try:
        bridge.load_state_dict({key: weights[key] for key in own})
        bridge.eval()
        for module in shared:
            module.recording = True
        with torch.no_grad():
            expected = source(images, mode='tensor')
            # Other images: what it computes must come from what it was handed.
            found = bridge(torch.zeros_like(images), mode='tensor')
    finally:
        for module in shared:
            module.recording = False
            module.clear()
        bridge.load_state_dict(own)
        bridge.train(was_training)
    if not torch.allclose(found, expected, rtol=1e-4, atol=1e-5):
        raise ValueError(
            f"{type(source.backbone).__name__} cannot be split at '{split}': what comes after it "
            'reads more than the modules called before it returned. Set split to another module, '
            'or take an offline method that needs no bridge (mmseg_adm.KD, CWD)'
        )
