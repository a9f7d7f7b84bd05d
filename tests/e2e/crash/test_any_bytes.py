"""Whatever bytes a file of text holds: what a plain reader finds in it, or one line."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import fuzz
import pytest
from fuzz_targets import text_targets
from hypothesis import given, settings
from hypothesis import strategies as st

TARGETS = {target.name: (target, folder) for target, folder in text_targets(Path(tempfile.mkdtemp()))}
_ODD = '\t\r\v\f\x1c\x85\u2028\ufeff"\\\0 '
_TEXT = st.text(st.characters() | st.sampled_from(_ODD), max_size=12)
_WORD = st.text(st.characters(codec="utf-8", exclude_characters="\t\n") | st.sampled_from(_ODD[1:]), max_size=8)
_ID = st.sampled_from(["q0", "q1", "d0", "d1", "d2"])
_NUMBER = st.integers(-3, 99).map(str) | st.floats().map(str) | st.sampled_from(["9" * 30, "+1", "1_0", "\u0663", " 1"])
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
)
_MARKED = st.lists(st.tuples(_TEXT, st.integers(-1, 2))).map(
    lambda pairs: {"passage_text": [text for text, _ in pairs], "is_selected": [mark for _, mark in pairs]}
)


def table(*fields: st.SearchStrategy[str], between: str = "\t") -> st.SearchStrategy[str]:
    return st.lists(st.tuples(*fields).map(between.join), min_size=1, max_size=5).map("\n".join)


def objects(optional: dict[Any, st.SearchStrategy[Any]], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    row = st.fixed_dictionaries(fields, optional=optional | {"x": _ANY})
    return st.lists(row.map(json.dumps), min_size=1, max_size=5).map("\n".join)


NEARLY_SOUND: dict[str, st.SearchStrategy[str]] = {
    "rows, JSONL": objects({}, query=_TEXT, passages=_MARKED)
    | objects({"negative": _TEXT}, query=_TEXT | _ANY, passage=_TEXT | _ANY),
    "pairs, TSV": table(_WORD, _WORD) | table(_WORD, _WORD, _WORD),
    "corpus, JSONL": objects(
        {"title": _TEXT, "metadata": st.dictionaries(_TEXT, _ANY, max_size=2)}, _id=_TEXT | st.integers(), text=_TEXT
    )
    | objects({"_id": _ANY, "id": _ANY, "title": _ANY, "metadata": _ANY}, text=_TEXT),
    "qrels": table(_WORD, _WORD, _NUMBER) | table(_ID, _NUMBER, _ID, _NUMBER),
    "run": table(_ID, _ID, _ID, _ID, _NUMBER, _ID | _WORD, between=" "),
}


@pytest.mark.parametrize("name", NEARLY_SOUND)
def test_any_bytes_are_read_right_or_refused_in_one_line(name: str) -> None:
    target, folder = TARGETS[name]
    sound = NEARLY_SOUND[name].map(lambda text: text.encode("utf-8", "surrogatepass"))
    seen = Counter[str]()

    @settings(deadline=None, max_examples=300, database=None, derandomize=True)
    @given(sound | sound | sound | st.binary(max_size=300))
    def check(content: bytes) -> None:
        target.files(folder)[0].write_bytes(content)
        outcome = fuzz.outcome_of(target, folder, [])
        seen[outcome] += 1
        assert outcome in ("read", "refused")

    check()
    assert seen["read"] > 5, seen
    assert seen["refused"] > 5, seen
