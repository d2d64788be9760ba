"""From a plain segmentor to ONNX, compared with PyTorch before the file is there."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmseg.models.backbones.swin import ShiftWindowMSA
from torch import Tensor, nn

from mmseg_adm.checkpoint import drop_pretrained, member_weights, read_checkpoint
from mmseg_adm.config import is_distillation_config
from mmseg_adm.models.shared import input_channels
from mmseg_adm.writing import remove_leftovers, whole_file

from .plain import build_plain, cut_out, plain_meta, with_ending
from .replacing import EXPORTED_BY
from .stand_ins import traceable

PACKAGES = ('onnxscript', 'onnxruntime')
AXES = {0: 'batch', 2: 'height', 3: 'width'}
# Two images: PyTorch takes a size of one for a constant.
BATCH = 2
EXAMPLE = (136, 200)
# As (N, H, W): multiples of 32 and others, larger and smaller than the example, odd ones.
SEVERAL_SIZES = ((1, *EXAMPLE), (3, 128, 128), (1, 97, 131), (2, 160, 96))
# Of the largest logit. Float32 differs by about 1e-6 of it, a wrong graph by far more.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class OnnxExport:
    """What was written, and how well it agrees with PyTorch.

    Args:
        path: The file.
        shape: Height and width in pixels that it takes; ``None`` if it takes any.
        difference: The largest absolute difference of a logit from PyTorch's.
        largest: The largest absolute logit.
        checked: The batches, (N, channels, H, W), on which they were compared.
    """

    path: Path
    shape: tuple[int, int] | None
    difference: float
    largest: float
    checked: tuple[tuple[int, int, int, int], ...]


class Logits(nn.Module):
    """What the graph computes: normalized images to logits of the same size.

    Args:
        network: A segmentor of mmseg.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, classes, H, W)."""
        return self.network.encode_decode(images, [dict(img_shape=images.shape[2:])])


def export_onnx(
    config: Config,
    checkpoint: str | Path,
    target: str | Path,
    member: str | None = None,
    shape: Sequence[int] | None = None,
) -> OnnxExport:
    """Write a network as ONNX: ``input`` (N, channels, H, W), normalized, to ``output``, logits.

    The channels are those that the network reads. How images are normalized, the classes and their
    colors stand in the file's metadata. The file only appears once ONNX Runtime computed with it
    what PyTorch computes.

    Args:
        config: A distillation config, or a plain one of mmseg.
        checkpoint: Of the distiller, or a plain one.
        target: Where the graph goes.
        member: Of a distillation; by default the one that is deployed.
        shape: Height and width in pixels, for networks that only export for one; by default
            the graph takes any.

    Raises:
        ValueError: If the network cannot be exported, or not for every size, or the graph does
            not compute what PyTorch computes; or as :func:`cut_out`.
        FileNotFoundError: If a checkpoint is not there.
        ModuleNotFoundError: If the ``onnx`` extra is not installed.
    """
    _check_packages()
    shape = _checked_shape(shape)
    plain, content = _plain(config, checkpoint, member)
    network = _build(plain, content, str(checkpoint))
    if shape is None and any(isinstance(module, ShiftWindowMSA) for module in network.modules()):
        # Tracing would find out too, in minutes.
        raise _needs_shape(network, 'the layout of its shifted windows follows from the size')
    graph = _trace(network, shape)
    channels = input_channels(network)
    facts = _metadata(plain, content, channels)
    graph.model.metadata_props.update(dict([EXPORTED_BY], **facts))
    target = with_ending(target, '.onnx')
    sizes = tuple((images, *shape) for images in (1, 3)) if shape else SEVERAL_SIZES
    batches = tuple((count, channels, height, width) for count, height, width in sizes)
    remove_leftovers(target.parent)
    with whole_file(target) as partial:
        graph.save(partial, external_data=False)
        difference, largest = _compare(partial, network, batches, shape)
    return OnnxExport(target, shape, difference, largest, batches)


def _check_packages() -> None:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'export to ONNX needs {" and ".join(missing)}: pip install -e ".[onnx]" -c '
            'constraints.txt'
        )


def _checked_shape(shape: Sequence[int] | None) -> tuple[int, int] | None:
    if shape is None:
        return None
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f'expected height and width in pixels, got {tuple(shape)}')
    return shape[0], shape[1]


def _plain(config: Config, checkpoint: str | Path, member: str | None) -> tuple[Config, dict]:
    if is_distillation_config(config):
        return cut_out(config, checkpoint, member)
    if member is not None:
        raise ValueError(
            f'this config is one of a single {config.model.type}: it has no member '
            f"'{member}' to choose"
        )
    config = copy.deepcopy(config)
    drop_pretrained(config.model)
    return config, read_checkpoint(checkpoint)


def _build(plain: Config, content: dict, source: str) -> Any:
    network = build_plain(plain)
    # Frozen: what is deployed runs no auxiliary head either.
    weights = member_weights(content, network, 'student', source, frozen=True)
    network.load_state_dict(weights.state_dict, strict=False)
    # SyncBN traces as an operator of torch.distributed.
    return revert_sync_batchnorm(network).eval().requires_grad_(False)


def _trace(network: Any, shape: tuple[int, int] | None) -> Any:
    """The graph, as PyTorch's ``ONNXProgram``.

    By ``torch.export``: the older exporter, ``dynamo=False``, has no adaptive pooling for sizes
    that are no multiple of the bins, writes the sizes of the example into the graphs of SegFormer
    and ViT without a word, and is deprecated. Without ``strict``, which takes minutes to find
    that a network is tied to a size.

    Raises:
        ValueError: If it cannot be traced.
    """
    images = torch.randn(BATCH, input_channels(network), *(shape or EXAMPLE))
    dynamic = {axis: torch.export.Dim.DYNAMIC for axis in AXES if shape is None or axis == 0}
    module = Logits(traceable(network)).eval()
    try:
        with torch.no_grad(), _quiet('torch.onnx', 'onnxscript', 'onnx_ir'):
            program = torch.export.export(
                module, (images,), dynamic_shapes={'images': dynamic}, strict=False
            )
            graph: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=['input'],
                output_names=['output'],
            )  # fmt: skip
    except Exception as error:  # tracing can fail anywhere in the network
        raise _refusal(network, shape, _reason(error)) from error
    for value in (*graph.model.graph.inputs, *graph.model.graph.outputs):
        for axis in dynamic:
            value.shape[axis] = AXES[axis]
    return graph


def _compare(
    path: Path,
    network: Any,
    batches: Sequence[tuple[int, int, int, int]],
    shape: tuple[int, int] | None,
) -> tuple[float, float]:
    """The largest difference of a logit between ONNX Runtime and PyTorch, and the largest logit.

    Raises:
        ValueError: If the former is more than rounding.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised, too
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    logits = Logits(network)
    generator = torch.Generator().manual_seed(0)
    difference = largest = 0.0
    for batch in batches:
        images = torch.randn(batch, generator=generator)
        where = f'on images of {"x".join(map(str, batch))}'
        try:
            with torch.no_grad():
                expected = logits(images)
            (found,) = session.run(['output'], {'input': images.numpy()})
        except Exception as error:  # of the network itself, or of ONNX Runtime
            raise _refusal(network, shape, f'{where}: {_reason(error)}') from error
        if found.shape != expected.shape:
            text = f'{where} its logits are {found.shape}, not {tuple(expected.shape)}'
            raise _refusal(network, shape, text)
        off = float((torch.from_numpy(found) - expected).abs().max())
        top = float(expected.abs().max())
        if not off <= TOLERANCE * top:  # also if it is no number
            text = f'{where} logits up to {top:.3g} differ by {off:.2g} from PyTorch'
            raise _refusal(network, shape, text)
        difference, largest = max(difference, off), max(largest, top)
    return difference, largest


def _refusal(network: Any, shape: tuple[int, int] | None, reason: str) -> ValueError:
    if shape is None:
        return _needs_shape(network, reason)
    return ValueError(
        f'{_name(network)} cannot be exported to ONNX at {shape[0]}x{shape[1]}: {reason}'
    )


def _needs_shape(network: Any, reason: str) -> ValueError:
    return ValueError(
        f'{_name(network)} cannot be exported to ONNX for every image size: {reason}. Give the '
        'size that it shall take: --shape HEIGHT WIDTH'
    )


def _name(network: Any) -> str:
    head = network.decode_head
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    return f'{type(network.backbone).__name__} with {type(head).__name__}'


def _reason(error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), '')
    if line.startswith('Constraints violated'):
        return 'its code turns the size of the example into constants'
    return f'{type(error).__name__}: {line[:200].rstrip(".")}'


def _metadata(plain: Config, content: dict, channels: int) -> dict[str, str]:
    """What stands beside the graph, as JSON: preprocessing, classes, how mmseg infers."""
    preprocessor = plain.model.get('data_preprocessor') or {}
    padding = preprocessor.get('test_cfg') or {}
    dataset_meta = plain_meta(content).get('dataset_meta', {})
    facts = {
        'mean': preprocessor.get('mean'),
        'std': preprocessor.get('std'),
        # Other images than those of three channels mmseg leaves as they are.
        'bgr_to_rgb': channels == 3 and preprocessor.get('bgr_to_rgb', False),
        'rgb_to_bgr': channels == 3 and preprocessor.get('rgb_to_bgr', False),
        'size_divisor': padding.get('size_divisor'),
        'size': padding.get('size'),
        'test_cfg': plain.model.get('test_cfg'),
        'classes': dataset_meta.get('classes'),
        'palette': dataset_meta.get('palette'),
    }
    return {key: json.dumps(value) for key, value in facts.items() if value is not None}


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without what the exporter logs about packages and operators that no network needs."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
