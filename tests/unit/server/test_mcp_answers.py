"""What an agent is told of a bundle, and how its answers are kept short."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freemvmt.data.documents import Document
from freemvmt.server.mcp.cutting import cut_note, fitting, shares, title_of
from freemvmt.server.mcp.description import Description


@given(st.lists(st.integers(0, 10**6), max_size=50), st.integers(0, 10**5))
def test_shares_use_the_total_and_no_more(lengths: list[int], total: int) -> None:
    limits = shares(lengths, total)
    assert sum(limits) <= total
    assert all(0 <= limit <= length for limit, length in zip(limits, lengths, strict=True))
    cut = [limit for limit, length in zip(limits, lengths, strict=True) if limit < length]
    if cut:
        assert sum(limits) > total - len(lengths)  # all but what cannot be divided
        assert max(limits) - min(cut) <= 1  # no text has more than one that is cut
    else:
        assert limits == lengths


@given(st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=40)), st.integers(0, 200))
def test_fields_fit_or_are_named(metadata: dict[str, Any], most: int) -> None:
    kept, left_out = fitting(metadata, most)
    assert kept.items() <= metadata.items()
    assert [*kept, *left_out] == sorted(metadata, key=lambda name: name in left_out)
    assert not kept or len(json.dumps(kept, ensure_ascii=False)) <= most


def test_what_is_cut_is_said() -> None:
    assert cut_note(10, 10, []) == ""
    assert cut_note(10, 2000, []) == "the text: 10 of 2,000 characters"
    assert cut_note(10, 10, ["a", "b"]) == "the fields a, b"
    assert len(cut_note(1, 10, ["x" * 30] * 99)) < 300
    assert title_of("one\n  two") == "one two"
    assert len(title_of("x" * 999)) == 200


def described(fields: dict[str, Any], values: dict[str, list[str]], **given: Any) -> Description:
    return Description("shop", given.get("documents", 2), given.get("examples", []), fields, values)


@pytest.mark.parametrize(
    ("fields", "values", "shown"),
    [
        ({"part": "string"}, {"part": ["saddle"]}, 'such as {"part": "saddle"}.'),
        ({"part": "string"}, {"part": ["rim", "é"]}, 'such as {"part": "rim"} or {"part": ["rim", "é"]}.'),
        ({"page": "number"}, {}, 'such as {"page": {"gte": 1990, "lt": 2000}}.'),
        ({"sold": "boolean"}, {}, 'such as {"sold": true}.'),
    ],
)
def test_filters_are_shown_with_the_fields_of_the_bundle(
    fields: dict[str, Any], values: dict[str, list[str]], shown: str
) -> None:
    description = described(fields, values)
    assert description.search.endswith(shown)
    assert set(description.filter_schema()["properties"]) == set(fields)


def test_what_is_in_a_bundle_fits_into_a_line() -> None:
    examples = [Document("a", "text", "A\n title"), Document("b", "x" * 500)]
    contents = described({}, {}, documents=1, examples=examples).contents
    assert contents == f'"shop" holds 1 document. Among them: "A title", "{"x" * 59}…".'
    nothing = described({}, {}, documents=0)
    assert nothing.contents == '"shop" holds 0 documents.'
    assert "filter" not in nothing.search
