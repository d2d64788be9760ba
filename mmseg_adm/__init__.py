"""Online knowledge distillation for MMSegmentation."""

from .stack import check_stack

__version__ = '0.1.0'

check_stack()


def __getattr__(name: str) -> object:
    """``mmseg_adm.pair``, imported when it is asked for: the package itself stays light."""
    if name == 'pair':
        from .config import pair

        return pair
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
