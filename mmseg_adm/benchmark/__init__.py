"""Which method helps a student, and by how much: plans, runs, raw results, tables, figures."""

from .figures import draw_figures
from .plan import Cell, Pair, Plan, Row
from .reading import read_plan
from .results import Results
from .runs import check_plan, run_plan
from .summary import Spread, Summary
from .table import markdown_table, remarks

__all__ = [
    'Cell',
    'Pair',
    'Plan',
    'Results',
    'Row',
    'Spread',
    'Summary',
    'check_plan',
    'draw_figures',
    'markdown_table',
    'read_plan',
    'remarks',
    'run_plan',
]
