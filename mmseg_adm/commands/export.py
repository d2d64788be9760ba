"""Write one network as plain MMSegmentation, or as ONNX."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .flags import add_config_flags, config_of

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_adm.export.onnx import OnnxExport


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What, in which format, and where to."""
    add_config_flags(parser)
    parser.add_argument(
        'checkpoint', help='of the distiller; with --onnx also a plain one with a plain config'
    )
    parser.add_argument('--out', help='path of the file; by default in export/ by the checkpoint')
    parser.add_argument('--member', help='by default the member that is deployed')
    parser.add_argument(
        '--onnx', action='store_true', help='as ONNX, compared with PyTorch before it is written'
    )
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'),
        help='with --onnx: take images of this size alone; by default of any, which not every '
        'network can',
    )  # fmt: skip


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    if args.shape and not args.onnx:
        raise ValueError('--shape belongs to --onnx: a plain network takes images of any size')
    config = config_of(args)
    if not args.onnx:
        written = export_student(
            config, args.checkpoint, args.out, args.member, trust_checkpoint=args.trust_checkpoint
        )
        print(f'wrote {written} and {written.with_suffix(".py")}')
        return
    onnx = export_onnx(config, args.checkpoint, args.out, args.member, args.shape)
    size = f'{args.shape[0]}x{args.shape[1]}' if args.shape else 'any size'
    checked = ', '.join(f'{n}x3x{height}x{width}' for n, height, width in onnx.checked)
    print(f'wrote {onnx.path}: any batch, images of {size}')
    print(
        f'ONNX Runtime and PyTorch differ by {onnx.difference:.1e} at most, of logits up to '
        f'{onnx.largest:.1f} ({checked})'
    )


def export_student(
    config: str | Path | Config,
    checkpoint: str | Path,
    out: str | Path | None = None,
    member: str | None = None,
    *,
    trust_checkpoint: bool = False,
) -> Path:
    """Write one member of a distiller as plain MMSegmentation, as ``mmseg-adm export`` does.

    Args:
        config: The distillation config, its path or its name; best the one in the work dir.
        checkpoint: Of the distiller.
        out: Path of the weights (.pth); the config goes beside them (.py). By default
            ``export/<member>_<checkpoint>`` beside the checkpoint.
        member: By default the one that is deployed.
        trust_checkpoint: Whether the checkpoint may hold, and run, more than weights.

    Returns:
        The path of the weights.

    Raises:
        FileNotFoundError: If config or checkpoint is not there.
        ValueError: If there is no such member, or ``out`` is a file of a training.
    """
    from mmseg_adm.export import export_member

    from .launch import load_config

    config = load_config(config, trust_checkpoint=trust_checkpoint)
    target = _target(config, Path(checkpoint), out, member, '.pth')
    return export_member(config, checkpoint, target, member)


def export_onnx(
    config: Config,
    checkpoint: str | Path,
    out: str | Path | None,
    member: str | None,
    shape: Sequence[int] | None,
) -> OnnxExport:
    """Write one network as ONNX; where to as :func:`export_student` does."""
    from mmseg_adm.export.onnx import export_onnx as write

    target = _target(config, Path(checkpoint), out, member, '.onnx')
    return write(config, checkpoint, target, member, shape)


def _target(
    config: Config, checkpoint: Path, out: str | Path | None, member: str | None, suffix: str
) -> Path:
    """Where an export goes.

    Raises:
        ValueError: If it is a folder, or what is there is exported from or a training's.
    """
    from mmseg_adm.config import is_distillation_config

    if out is None:
        plain = not is_distillation_config(config)
        name = '' if plain else f'{member or config.model.get("student", "student")}_'
        return checkpoint.parent / 'export' / f'{name}{checkpoint.stem}{suffix}'
    if Path(out).is_dir() or str(out).endswith('/'):
        raise ValueError(f'{out} is a folder: --out is the path of a file')
    # Not with_suffix: student_v1.0 holds a dot.
    target = Path(out if str(out).endswith(suffix) else f'{out}{suffix}')
    sources = [checkpoint, *([Path(config.filename)] if config.filename else [])]
    for path in (target, target.with_suffix('.py'))[: 1 if suffix == '.onnx' else 2]:
        if path.resolve() in [source.resolve() for source in sources]:
            raise ValueError(f'{path} is what is exported from: choose another --out')
        if path.exists() and (path.parent / 'last_checkpoint').exists():
            raise ValueError(
                f'{path} is there, among the files of a training, which exports leave as they '
                'are: choose another --out'
            )
    return target
