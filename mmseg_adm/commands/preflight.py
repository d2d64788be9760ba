"""Everything about a training that can be known before it starts; exit status 1 if it must not."""

import warnings

from mmengine.logging import MMLogger

from mmseg_adm.preflight import inspect_config, print_report

from .flags import config_parser, load_config, replace_sync_bn


def main() -> int:
    """Run the command line."""
    args = config_parser('Look at a training before it starts', pairs=True).parse_args()
    # MMEngine reports how each weight was initialised.
    MMLogger.get_instance('preflight', log_level='ERROR')
    warnings.filterwarnings('ignore', module='mmseg|mmengine|mmcv')
    config = load_config(args)
    replace_sync_bn(config)
    report = inspect_config(config)
    print_report(report)
    return 1 if report.failed else 0
