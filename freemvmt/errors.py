"""Errors that the user can correct. Commands print them as one line, without a traceback."""


class UserError(Exception):
    """An error that the user can correct. Its message is one line: what is wrong, and what to do instead.

    The command line prints it after ``error: `` and exits with 2; a program that imports the package can catch it.
    """


class NotFound(UserError):  # noqa: N818  an answer rather than a fault
    """No document has that id."""
