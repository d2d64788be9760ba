"""What a run would do, found before it starts: tables, a memory estimate, checks."""

from .inspection import inspect_config, inspect_run
from .render import as_text, print_report
from .report import Check, Report

__all__ = ['Check', 'Report', 'as_text', 'inspect_config', 'inspect_run', 'print_report']
