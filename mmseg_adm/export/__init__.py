"""One member of a distillation by itself: as plain MMSegmentation, and as ONNX."""

from .plain import cut_out, export_member, plain_checkpoint, plain_config, with_ending
from .replacing import check_target

__all__ = [
    'check_target',
    'cut_out',
    'export_member',
    'plain_checkpoint',
    'plain_config',
    'with_ending',
]
