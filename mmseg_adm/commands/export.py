"""Write one network as plain MMSegmentation, or as ONNX."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmseg_adm.paths import check_folder

from .flags import add_config_flags, at_least_one, check_checkpoint, check_config, config_of, path

if TYPE_CHECKING:
    from mmengine.config import Config

    from mmseg_adm.export.onnx import OnnxExport


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What, in which format, and where to."""
    add_config_flags(parser)
    parser.add_argument(
        'checkpoint',
        type=path,
        help='of the distiller; with --onnx also a plain one with a plain config',
    )
    parser.add_argument(
        '--out', type=path, help='path of the file; by default in export/ by the checkpoint'
    )
    parser.add_argument('--member', help='by default the member that is deployed')
    parser.add_argument(
        '--onnx', action='store_true', help='as ONNX, compared with PyTorch before it is written'
    )
    parser.add_argument(
        '--shape', nargs=2, type=at_least_one, metavar=('HEIGHT', 'WIDTH'),
        help='with --onnx: take images of this size alone; by default of any, which not every '
        'network can',
    )  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Refuse what the flags alone tell."""
    if args.shape and not args.onnx:
        raise ValueError('--shape belongs to --onnx: a plain network takes images of any size')
    check_config(args)
    check_checkpoint(args.checkpoint)
    if args.out:
        check_folder('--out', Path(args.out).parent)


def run(args: argparse.Namespace) -> None:
    """Run the command."""
    config = config_of(args)
    if not args.onnx:
        written = export_student(
            config, args.checkpoint, args.out, args.member, trust_checkpoint=args.trust_checkpoint
        )
        print(f'wrote {written} and {written.with_suffix(".py")}')
        return
    onnx = export_onnx(config, args.checkpoint, args.out, args.member, args.shape)
    size = f'{args.shape[0]}x{args.shape[1]}' if args.shape else 'any size'
    checked = ', '.join('x'.join(map(str, batch)) for batch in onnx.checked)
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
        checkpoint: Of the distiller: a path, or an address.
        out: Path of the weights (.pth); the config goes beside them (.py). By default
            ``export/<member>_<checkpoint>`` beside the checkpoint.
        member: By default the one that is deployed.
        trust_checkpoint: Whether the checkpoint may hold, and run, more than weights.

    Returns:
        The path of the weights.

    Raises:
        FileNotFoundError: If config or checkpoint is not there.
        ValueError: If there is no such member, or ``out``, or the config beside it, is there and
            no export has written it.
    """
    from mmseg_adm.checkpoint import local_path
    from mmseg_adm.export import export_member

    from .launch import load_config

    config = load_config(config, trust_checkpoint=trust_checkpoint)
    target = _target(config, str(checkpoint), out, member, '.pth')
    return export_member(config, local_path(str(checkpoint)), target, member)


def export_onnx(
    config: Config,
    checkpoint: str | Path,
    out: str | Path | None,
    member: str | None,
    shape: Sequence[int] | None,
) -> OnnxExport:
    """Write one network as ONNX; where to as :func:`export_student` does."""
    from mmseg_adm.checkpoint import local_path
    from mmseg_adm.export.onnx import export_onnx as write

    target = _target(config, str(checkpoint), out, member, '.onnx')
    return write(config, local_path(str(checkpoint)), target, member, shape)


def _target(
    config: Config, checkpoint: str, out: str | Path | None, member: str | None, suffix: str
) -> Path:
    """Where an export goes.

    Raises:
        ValueError: If it is a folder, or what is exported from.
        OSError: If it cannot be written, or something is there that no export has written.
    """
    from mmseg_adm.checkpoint import is_remote
    from mmseg_adm.config import is_distillation_config
    from mmseg_adm.export import check_target, with_ending

    sources = [Path(config.filename)] if config.filename else []
    if not is_remote(checkpoint):
        sources.append(Path(checkpoint))
    if out is not None:
        if Path(out).is_dir() or str(out).endswith('/'):
            raise ValueError(f'{out} is a folder: --out is the path of a file')
        target = with_ending(out, suffix)
    elif is_remote(checkpoint):
        raise ValueError(f'{checkpoint} has no folder to export into: name a file with --out')
    else:
        plain = not is_distillation_config(config)
        name = '' if plain else f'{member or config.model.get("student", "student")}_'
        target = sources[-1].parent / 'export' / f'{name}{sources[-1].stem}{suffix}'
    check_folder('--out', target.parent)
    check_target(target, sources)
    return target
