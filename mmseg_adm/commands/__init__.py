"""One file a command; ``flags.py`` is what they share."""
