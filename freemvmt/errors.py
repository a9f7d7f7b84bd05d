"""The one kind of error that is the user's to mend, and the tracebacks that stay away from it."""


class UserError(Exception):
    """What the user gave is wrong. The message is one line: what is wrong, and what to do instead.

    The command line prints it after ``error: `` and exits with 2; a program that imports the package can catch it.
    """


class NotFound(UserError):  # noqa: N818  an answer more than a fault
    """There is no document of that id."""
