"""One file a command; ``main.py`` runs them, ``flags.py`` and ``launch.py`` are what they share.

A command's file holds ``add_flags(parser)``, ``check(args)`` and ``run(args)``, and imports what is
heavy inside functions: help and a mistake on the command line don't wait for PyTorch. ``check``
refuses what the flags alone tell, and paths that cannot be read or written.
"""
