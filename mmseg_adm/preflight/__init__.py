"""What a run would do, found before it starts: tables, a memory estimate, checks."""

from .inspection import inspect_config, inspect_run
from .render import as_text, print_report
from .report import Check, Member, Memory, Method, Report, Term

__all__ = [
    'Check',
    'Member',
    'Memory',
    'Method',
    'Report',
    'Term',
    'as_text',
    'inspect_config',
    'inspect_run',
    'print_report',
]
