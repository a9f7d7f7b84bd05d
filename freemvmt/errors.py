"""Errors that the user can correct. Commands print them as one line, without a traceback."""

# What ends a line for ``str.splitlines``: a message that quotes data stays one line.
_LINE_ENDS = str.maketrans({end: ascii(end)[1:-1] for end in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"})


_MAX_REASON = 300  # characters of a library's error in a message


def first_line(error: object) -> str:
    """What a library's error says first, as a part of a message: one line, or the error's type if it says nothing."""
    line = next((line for line in map(str.strip, str(error).splitlines()) if line), type(error).__name__)
    return line if len(line) <= _MAX_REASON else line[: _MAX_REASON - 1] + "…"


class UserError(Exception):
    """An error that the user can correct. Its message is one line: what is wrong, and what to do instead.

    The command line prints it after ``error: `` and exits with 2; a program that imports the package can catch it.
    """

    def __str__(self) -> str:
        return super().__str__().translate(_LINE_ENDS)


class NotFound(UserError):  # noqa: N818  an answer rather than a fault
    """No document has that id."""
