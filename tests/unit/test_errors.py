"""The error that a user can correct, and what it says of a library's."""

import pytest

from freemvmt.errors import UserError, first_line


@pytest.mark.parametrize("end", ["\n", "\r\n", "\x1d", "\x85", "\u2028"])
def test_a_message_that_quotes_data_stays_one_line(end: str) -> None:
    said = str(UserError(f"no column 'corpus{end}id'; name it so"))
    assert len(said.splitlines()) == 1
    assert said.startswith("no column 'corpus\\")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError("no space left"), "no space left"),
        (RuntimeError("cannot connect\nC++ stack:\n#0 main"), "cannot connect"),
        (ValueError("\n\n  bad magic number \r\nat 0"), "bad magic number"),
        (AssertionError(), "AssertionError"),
        (TimeoutError(" \n\t"), "TimeoutError"),
        (KeyError("model_type"), "'model_type'"),
        ("Milvus says this\nand that", "Milvus says this"),
    ],
)
def test_the_first_line_of_a_librarys_error(error: object, line: str) -> None:
    assert first_line(error) == line


def test_the_first_line_of_a_long_error_is_cut() -> None:
    line = first_line(ValueError("x" * 10_000))
    assert line == "x" * 299 + "…"
    assert first_line(ValueError("x" * 300)) == "x" * 300
