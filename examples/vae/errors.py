"""The error that ends the program with one line instead of a traceback."""


class UsageError(Exception):
    """An argument that cannot be used; its message names the argument, what it got, what it needs."""
