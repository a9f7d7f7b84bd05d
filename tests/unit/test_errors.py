"""The error that a user can correct."""

import pytest

from freemvmt.errors import UserError


@pytest.mark.parametrize("end", ["\n", "\r\n", "\x1d", "\x85", "\u2028"])
def test_a_message_that_quotes_data_stays_one_line(end: str) -> None:
    said = str(UserError(f"no column 'corpus{end}id'; name it so"))
    assert len(said.splitlines()) == 1
    assert said.startswith("no column 'corpus\\")
