"""Corpora of every form become documents, or are refused with the place of what is wrong."""

import datetime
import json
import math
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.data.corpus import read_corpus
from freemvmt.data.documents import MAX_ID_BYTES, Document, check_distinct
from freemvmt.data.records import record_of
from freemvmt.data.values import MAX_METADATA_BYTES, passage_id
from freemvmt.errors import UserError

from beir_folder import write_beir


def test_a_beir_folder(tmp_path: Path) -> None:
    documents = list(read_corpus(str(write_beir(tmp_path / "beir"))))
    assert documents[3] == Document("d3", "3", "on", {})
    assert documents[3].content == "on 3"
    assert [document.id for document in documents] == [f"d{number}" for number in range(10)]
    (tmp_path / "beir" / "corpus.jsonl").rename(tmp_path / "beir" / "collection.tsv")
    (tmp_path / "beir" / "collection.tsv").write_text("7\tsome text\n")
    assert list(read_corpus(str(tmp_path / "beir"))) == [Document("7", "some text")]


LINES: dict[str, tuple[dict[str, Any], Document]] = {
    "_id": ({"_id": "a", "text": "x"}, Document("a", "x")),
    "id": ({"id": "a", "text": "x"}, Document("a", "x")),
    "both": ({"_id": "a", "id": "b", "text": "x"}, Document("a", "x", "", {"id": "b"})),
    "both alike": ({"_id": "a", "id": "a", "text": "x"}, Document("a", "x")),
    "_id of null": ({"_id": None, "id": "b", "text": "x"}, Document("b", "x")),
    "a number": ({"id": 7, "text": "x"}, Document("7", "x")),
    "none": ({"text": "some text"}, Document(passage_id("some text"), "some text")),
    "no text in it": ({"id": "a", "text": ""}, Document("a", "")),
    "title of null": ({"id": "a", "text": "x", "title": None, "metadata": None}, Document("a", "x")),
    "more fields": (
        {"id": "a", "text": "x", "year": 1990, "metadata": {"year": 1990, "source": "s"}, "tags": ["b"]},
        Document("a", "x", "", {"year": 1990, "source": "s", "tags": ["b"]}),
    ),
    "half a pair": ({"id": "a\ud800", "text": "x\udfff"}, Document("a�", "x�")),
    "odd text": ({"id": "a\0\n", "text": "\0\r\n\u2028🦓"}, Document("a\0\n", "\0\r\n\u2028🦓")),
}


@pytest.mark.parametrize("case", LINES)
def test_a_line_of_json(case: str, tmp_path: Path) -> None:
    record, document = LINES[case]
    (tmp_path / "corpus.jsonl").write_text(f"\n{json.dumps(record)}\n\n")
    assert list(read_corpus(str(tmp_path / "corpus.jsonl"))) == [document]


BAD_LINES = {
    "no text": ('{"id": "a", "body": "x"}', 'no text in a field "text" .*"id", "body"'),
    "no fields": ("{}", r'no text in a field "text" \(fields: none\)'),
    "text of null": ('{"text": null}', '"text" holds null, not text'),
    "a number as text": ('{"text": 1}', '"text" holds the number 1, not text'),
    "a list as text": ('{"text": ["a"]}', '"text" holds a list, not text'),
    "no id": ('{"id": "", "text": "x"}', '"id" is blank, which is no id'),
    "a long id": ('{"id": "%s", "text": "x"}' % ("é" * 257), "not 514"),
    "truth as id": ('{"id": true, "text": "x"}', '"id" holds a boolean, not an id'),
    "a fraction as id": ('{"id": 1.5, "text": "x"}', '"id" holds the number 1.5, not an id'),
    "a list as id": ('{"id": [], "text": "x"}', '"id" holds a list, not an id'),
    "a number as title": ('{"text": "x", "title": 3}', '"title" holds the number 3, not text'),
    "text as metadata": ('{"text": "x", "metadata": "y"}', '"metadata" is no object'),
    "a list as metadata": ('{"text": "x", "metadata": []}', '"metadata" is no object'),
    "no name": ('{"text": "x", "metadata": {"": 1}}', '"metadata" is no object with names'),
    "no name beside": ('{"text": "x", "": 1}', '"metadata" is no object with names'),
    "no number": ('{"text": "x", "n": NaN}', "is no JSON value"),
    "without end": ('{"text": "x", "n": [Infinity]}', "is no JSON value"),
    "large": ('{"text": "x", "n": "%s"}' % ("é" * 40_000), '"metadata" has 80,0.. bytes; give 65,536 at most'),
    "broken": ('{"text": "x"', "not JSON"),
    "a list": ("[]", "a JSON list"),
}


@pytest.mark.parametrize("case", BAD_LINES)
def test_a_bad_line_is_refused_with_its_place(case: str, tmp_path: Path) -> None:
    line, what = BAD_LINES[case]
    path = tmp_path / "corpus.jsonl"
    path.write_text(f'{{"id": "good", "text": "x"}}\n\n{line}\n')
    documents = read_corpus(str(path))
    assert next(documents).id == "good"
    with pytest.raises(UserError, match=what) as refused:
        next(documents)
    assert str(refused.value).startswith(f"{path}, line 3: ")
    assert "; " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tables_of_two_and_three_columns(tmp_path: Path) -> None:
    path = tmp_path / "corpus.tsv"
    path.write_text("1\tsome text\n2\t\n")
    assert list(read_corpus(str(path))) == [Document("1", "some text"), Document("2", "")]
    path.write_text("2\ttitle\tmore text\n3\t\t\n")
    assert list(read_corpus(str(path))) == [Document("2", "more text", "title"), Document("3", "")]
    for bad, what in (
        ("one", "line 2: 1 tab-separated field, not the 2 of the first line"),
        ("a\tb\tc\td", "line 2: 4 tab"),
        ("\tx", 'line 2: "id" is blank'),
    ):
        path.write_text(f"1\tx\n{bad}\n")
        with pytest.raises(UserError, match=what):
            list(read_corpus(str(path)))
    path.write_bytes(b"1\tx\n2\tcaf\xe9\n")
    with pytest.raises(UserError, match="line 2: byte 6 is not UTF-8"):
        list(read_corpus(str(path)))


def test_parquet_with_all_sorts_of_columns(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "text": pa.array(["one", "two", ""], pa.large_string()),
            "title": pa.array([None, "second", "third"]),
            "year": pa.array([1990, None, 2000], pa.int16()),
            "score": pa.array([1.5, math.nan, math.inf]),
            "half": pa.array(np.array([1, 2, 3], np.float16)),
            "date": pa.array([datetime.date(2020, 1, 2)] * 3),
            "at": pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5)] * 3, pa.timestamp("us")),
            "price": pa.array([Decimal("1.50")] * 3),
            "flag": pa.array([True, False, None]),
            "word": pa.array(["a", "b", "a"]).dictionary_encode(),
            "nested": pa.array([{"a": [1.5, None, math.nan], "b": datetime.date(2021, 1, 1)}] * 3),
        }
    )
    pq.write_table(table, tmp_path / "corpus.parquet")
    one, two, three = read_corpus(str(tmp_path / "corpus.parquet"))
    assert (one.id, one.text, one.title) == ("1", "one", "")
    assert (two.id, two.text, two.title) == ("2", "two", "second")
    assert one.metadata == {
        "year": 1990,
        "score": 1.5,
        "half": 1.0,
        "date": "2020-01-02",
        "at": "2020-01-02T03:04:05",
        "price": "1.50",
        "flag": True,
        "word": "a",
        "nested": {"a": [1.5, None, None], "b": "2021-01-01"},
    }
    assert two.metadata.get("score") is None
    assert "year" not in two.metadata
    assert three.metadata.get("score") is None
    for document in (one, two, three):
        json.dumps(document.metadata, allow_nan=False)


def test_bad_parquet_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    for columns, what in (
        ({"text": ["a", None]}, 'row 2: "text" holds null, not text'),
        ({"id": ["a", ""], "text": ["a", "b"]}, 'row 2: "id" is blank'),
        ({"body": ["a"]}, "row 1: no text in a field .*body"),
        ({"text": ["a"], "id": [1.5]}, 'row 1: "id" holds the number 1.5, not an id'),
        ({"text": ["a"], "metadata": ["b"]}, 'row 1: "metadata" is no object'),
    ):
        pq.write_table(pa.table(columns), path)
        with pytest.raises(UserError, match=what) as refused:
            list(read_corpus(str(path)))
        assert str(path) in str(refused.value)
    content = path.read_bytes()
    for damaged in (b"", b"PAR1", content[:-9], content[: len(content) // 2] * 2):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"is not a sound Parquet file .*; fetch or write it again"):
            list(read_corpus(str(path)))


@pytest.mark.parametrize("name", ["nothing", "", "a\0b", "x" * 5000, "a/b/c", "nothing.jsonl"])
def test_what_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="; give "):
        list(read_corpus(f"{tmp_path}/{name}" if name else "nowhere at all"))


def test_unknown_endings_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"'.csv' is not known; give .parquet, .jsonl or .tsv"):
        list(read_corpus(str(tmp_path / "corpus.csv")))
    with pytest.raises(UserError, match=r"holds no corpus.jsonl, no collection.tsv, and no file to read; "):
        list(read_corpus(str(tmp_path)))


def test_a_document_is_sound_or_refused() -> None:
    assert Document("x" * MAX_ID_BYTES, "").id
    assert Document("a", "b", metadata={"n": "x" * (MAX_METADATA_BYTES - 9)}).metadata
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    for arguments in (
        ("x" * (MAX_ID_BYTES + 1), ""),
        ("", ""),
        (1, ""),
        ("a", None),
        ("a", b"x"),
        ("a\ud800", ""),
        ("a", "\udfff"),
        ("a", "", "\ud800"),
        ("a", "", None),
        ("a", "", "", None),
        ("a", "", "", {1: 2}),
        ("a", "", "", {"n": "x" * MAX_METADATA_BYTES}),
        ("a", "", "", {"n": {1, 2}}),
        ("a", "", "", {"n": "\ud800"}),
        ("a", "", "", {"\ud800": 1}),
        ("a", "", "", {"n": math.nan}),
        ("a", "", "", {"n": deep}),
        ("a", "", "", circle),
    ):
        with pytest.raises(UserError, match="; ") as refused:
            Document(*arguments)  # type: ignore[arg-type]
        assert "\n" not in str(refused.value)
        str(refused.value).encode()


def test_an_id_that_stands_twice_among_documents_is_refused() -> None:
    documents = [Document("a", "1"), Document("b", "2"), Document("a", "3")]
    assert check_distinct(iter(documents[:2])) == documents[:2]
    with pytest.raises(
        UserError, match=r"^documents\[2\]: the document 'a' stands twice, first at documents\[0\]; keep"
    ):
        check_distinct(documents)


def test_a_place_stands_before_what_is_wrong() -> None:
    with pytest.raises(UserError, match=r"^documents\[3\]: no text"):
        record_of({"id": "a"}, "documents[3]")
