"""Which method helps a student, and by how much: plans, runs, raw results, tables, figures."""

from .figures import draw_figures
from .plan import Cell, Plan, read_plan
from .results import Results
from .runs import run_plan
from .table import markdown_table

__all__ = [
    'Cell',
    'Plan',
    'Results',
    'draw_figures',
    'markdown_table',
    'read_plan',
    'run_plan',
]
