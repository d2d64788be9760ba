"""The methods: one paper a file."""

from .adm import ADM
from .at import AT
from .base import DistillationMethod
from .cwd import CWD
from .dist import DIST
from .dml import DML
from .ffsd import FFSD
from .fitnet import FitNet
from .ifvd import IFVD
from .kd import KD
from .kdcl import KDCL
from .mgd import MGD
from .skd import SKD
from .sokd import SOKD
from .switokd import SwitOKD
from .teacher_student import TeacherStudentMethod

__all__ = [
    'ADM',
    'AT',
    'CWD',
    'DIST',
    'DML',
    'FFSD',
    'IFVD',
    'KD',
    'KDCL',
    'MGD',
    'SKD',
    'SOKD',
    'DistillationMethod',
    'FitNet',
    'SwitOKD',
    'TeacherStudentMethod',
]
