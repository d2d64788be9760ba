"""Write a trained network as ONNX, compared with PyTorch before the file is there."""

from pathlib import Path

from mmseg_adm.config import is_distillation_config
from mmseg_adm.export.onnx import export_onnx

from .flags import config_parser, load_config


def main() -> None:
    """Run the command line."""
    parser = config_parser('Export the student, another member or a plain network to ONNX')
    parser.add_argument('checkpoint', help='of the distiller, or a plain one with a plain config')
    parser.add_argument('--out', help='path of the .onnx; by default beside the checkpoint')
    parser.add_argument('--member', help='by default the member that is deployed')
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'),
        help='take images of this size alone; by default of any, which not every network can',
    )  # fmt: skip
    args = parser.parse_args()
    config = load_config(args)
    target = Path(args.out or args.checkpoint).with_suffix('.onnx')
    if args.out is None and is_distillation_config(config):
        name = args.member or config.model.get('student', 'student')
        target = target.with_name(f'{name}_{target.name}')
    written = export_onnx(config, args.checkpoint, target, args.member, args.shape)
    size = f'{args.shape[0]}x{args.shape[1]}' if args.shape else 'any size'
    checked = ', '.join(f'{n}x3x{height}x{width}' for n, height, width in written.checked)
    print(f'wrote {written.path}: any batch, images of {size}')
    print(
        f'ONNX Runtime and PyTorch differ by {written.difference:.1e} at most, of logits up to '
        f'{written.largest:.1f} ({checked})'
    )
