"""Notebooks: cells without outputs."""

import json
from typing import Any

import pytest

from freemvmt.data.files.content import UnreadableError
from freemvmt.data.files.notebook import read_notebook


def notebook(*cells: dict[str, Any]) -> bytes:
    return json.dumps({"nbformat": 4, "metadata": {}, "cells": cells}).encode()


def test_cells_become_blocks() -> None:
    content = read_notebook(
        notebook(
            {"cell_type": "markdown", "source": ["intro\n", "\n", "# Pumps\n"]},
            {"cell_type": "code", "source": "# no heading\nprint(1)", "outputs": [{"text": "secret"}]},
            {"cell_type": "code", "source": []},
            {"cell_type": "markdown", "source": "## Parts"},
        )
    )
    assert content.text == "intro\n\n# Pumps\n\n# no heading\nprint(1)\n\n## Parts"
    assert content.title == "Pumps"
    assert [(one.level, content.text[one.start :].split("\n")[0]) for one in content.outline.headings] == [
        (1, "# Pumps"),
        (2, "## Parts"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"worksheets": []}',
        b'{"cells": {}}',
        b'{"cells": [1]}',
        b'{"cells": [{"source": [1]}]}',
        b'{"cells": [{"source": null}]}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_notebook_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableError, match="it is no "):
        read_notebook(content)


def test_outputs_may_hold_what_is_no_json() -> None:
    assert read_notebook(b'{"cells": [{"source": "a", "outputs": [NaN]}]}').text == "a"


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert read_notebook(b'{"cells": [{"source": "a\\ud800b"}]}').text == "a\ufffdb"
