"""The methods: one paper a file."""

from .adm import ADM
from .base import DistillationMethod
from .cwd import CWD
from .dml import DML
from .kd import KD

__all__ = ['ADM', 'CWD', 'DML', 'KD', 'DistillationMethod']
