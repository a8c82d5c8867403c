"""The errors that end the program with one line instead of a traceback."""


class UsageError(Exception):
    """An argument that cannot be used; the message names it, what it got and what it needs."""


class RunError(Exception):
    """A run that cannot go on; the message says why, and what was saved."""
