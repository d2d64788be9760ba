"""One member of a distillation by itself: as plain MMSegmentation, and as ONNX."""

from .plain import cut_out, export_member, plain_checkpoint, plain_config

__all__ = ['cut_out', 'export_member', 'plain_checkpoint', 'plain_config']
