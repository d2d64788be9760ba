"""Cut the student out of a distiller's checkpoint: a plain mmseg checkpoint and config."""

from pathlib import Path

from mmseg_adm.export import export_member

from .flags import config_parser, load_config


def main() -> None:
    """Run the command line."""
    parser = config_parser('Export the student, or another member, as plain MMSegmentation')
    parser.add_argument('checkpoint', help='checkpoint of the distiller')
    parser.add_argument('--out', help='path of the .pth; by default beside the checkpoint')
    parser.add_argument('--member', help='by default the member that is deployed')
    args = parser.parse_args()
    config = load_config(args)
    checkpoint = Path(args.checkpoint)
    name = args.member or config.model.get('student', 'student')
    target = args.out or checkpoint.with_name(f'{name}_{checkpoint.name}')
    target = export_member(config, checkpoint, target, args.member)
    print(f'wrote {target} and {target.with_suffix(".py")}')
