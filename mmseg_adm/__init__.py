"""Online knowledge distillation for MMSegmentation."""

from importlib import import_module

from .stack import check_installed

__version__ = '0.1.0'

# Imported when they are asked for: the package itself stays light.
_PYTHON = {
    'pair': '.config',
    'train': '.commands.train',
    'export_student': '.commands.export',
}


def __getattr__(name: str) -> object:
    """``mmseg_adm.pair``, ``mmseg_adm.train`` and ``mmseg_adm.export_student``."""
    if name in _PYTHON:
        check_installed()
        return getattr(import_module(_PYTHON[name], __name__), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
