"""The distiller, its methods and their losses."""

from .distiller import KnowledgeDistiller
from .methods import ADM, CWD, DML, KD, DistillationMethod

__all__ = ['ADM', 'CWD', 'DML', 'KD', 'DistillationMethod', 'KnowledgeDistiller']
