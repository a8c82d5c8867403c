"""The error that ends the program with one line instead of a traceback."""


class UsageError(Exception):
    """An argument that cannot be used; the message names it, what it got and what it needs."""
