"""Metadata from files to filters by the command line: lists, dates, spellings, and what is said of the rest."""

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

from refusals import refusal

ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "red apple", "tag": "fruit", "date": "2019-12-31"},
    {"id": "b", "text": "green apple", "tag": ["Fruit", "green"], "date": "2020-01-01", "size": 10**30},
    {"id": "c", "text": "apple phone", "tag": [{"name": "gadget"}], "date": None, "size": {"cm": 1}},
]


@pytest.fixture(scope="module")
def model(tiny_base: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "model"
    TwoTowersModel(ModelConfig(base=tiny_base)).save(folder)
    return str(folder)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[Any, str]:
    """What a command with --json prints, and what it says beside that."""
    assert main([*map(str, arguments), "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def found(capsys: pytest.CaptureFixture[str], bundle: Path, *filters: str) -> str:
    flags = [flag for one in filters for flag in ("--filter", one)]
    hits = run(capsys, "search", bundle, "apple", *flags)[0]["hits"]
    return "".join(sorted(hit["id"] for hit in hits))


def test_filters_see_lists_and_the_rest_is_said(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    told, said = run(capsys, "index", model, write(tmp_path / "c.jsonl", ROWS), "--output", bundle)
    assert told["unseen"] == {
        "size": {"whole numbers beyond 2**53": 1, "objects": 1},
        "tag": {"lists of objects": 1},
    }
    assert 'note      filters do not see 1 value of "size" (whole numbers beyond 2**53)' in said
    assert '1 value of "tag" (lists of objects)' in said
    assert found(capsys, bundle, "tag=fruit") == "ab"
    assert found(capsys, bundle, "tag=GREEN") == "b"
    assert found(capsys, bundle, 'tag=["green", "gadget"]') == "b"
    assert found(capsys, bundle, "date>=2020-01-01") == "b"
    assert found(capsys, bundle, "date<2020") == "a"

    more = write(tmp_path / "more.jsonl", [{"id": "d", "text": "apple", "tag": ["fruit", "Green"], "size": [10**30]}])
    told, said = run(capsys, "add", bundle, more)
    assert told["unseen"] == {"size": {"lists with whole numbers beyond 2**53": 1}}
    assert 'note      filters do not see 1 value of "size"' in said
    assert found(capsys, bundle, "tag=green") == "bd"
    retriever = Retriever.load(bundle)
    assert retriever.values("tag") == ["fruit", "Green"]
    assert (retriever.years("date"), retriever.years("tag"), retriever.years("size")) == (["2020", "2019"], [], [])
    retriever.close()
    for tag in ([1], 1, [True]):
        other = write(tmp_path / "other.jsonl", [{"id": "e", "text": "apple", "tag": tag}])
        assert 'the field "tag" is a string in the documents before it' in refusal(
            capsys, tmp_path, "add", bundle, other
        )


def test_nothing_is_said_where_filters_see_all(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    rows = [
        {"id": "a", "text": "apple", "tag": [], "n": None},
        {"id": "b", "text": "apple", "tag": ["x"], "n": [1, 2.5]},
    ]
    told, said = run(capsys, "index", model, write(tmp_path / "c.jsonl", rows), "--output", bundle)
    assert told["unseen"] == {}
    assert "filters do not see" not in said
    assert told["fields"] == {"tag": "string", "n": "number"}
    assert found(capsys, bundle, "n>2") == "b"


def test_lists_and_dates_of_parquet(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "text": ["red apple", "green apple", "apple phone"],
            "tags": pa.array([["fruit"], ["fruit", "green"], None], pa.list_(pa.string())),
            "years": pa.array([[2019], [2020, 2021], []], pa.large_list(pa.int32())),
            "day": pa.array([datetime.date(2019, 12, 31), datetime.date(2020, 1, 1), None]),
            "moment": pa.array([datetime.datetime(2020, 1, 1, 8), datetime.datetime(2020, 1, 1, 12), None]),
        }
    )
    pq.write_table(table, tmp_path / "c.parquet")
    bundle = tmp_path / "bundle"
    told, _ = run(capsys, "index", model, tmp_path / "c.parquet", "--output", bundle)
    assert told["fields"] == {"tags": "string", "years": "number", "day": "string", "moment": "string"}
    assert found(capsys, bundle, "tags=fruit") == "ab"
    assert found(capsys, bundle, "years>2019") == "b"
    assert found(capsys, bundle, "day>=2020-01-01") == "b"
    assert found(capsys, bundle, "moment>=2020-01-01T10:00") == "b"
    assert found(capsys, bundle, "moment>=2020-01-01", "moment<2020-01-02") == "ab"


def test_a_field_of_the_name_of_ours_is_not_lost(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database's ``_id`` beside a user's ``id``; and names of ours within the metadata."""
    own = {"id": "customer-7", "_id": 3, "title": "theirs", "text": "t", "metadata": {"a": 1}, "score": 5}
    rows = [
        {"_id": "a", "id": "customer-7", "text": "red apple"},
        {"_id": "b", "id": "b", "text": "green apple", "year": 2020, "metadata": {"year": 2020}},
        {"id": "c", "title": "ours", "text": "apple phone", "metadata": own},
    ]
    bundle = tmp_path / "bundle"
    run(capsys, "index", model, write(tmp_path / "c.jsonl", rows), "--output", bundle)
    hits = run(capsys, "search", bundle, "apple", "--filter", "id=customer-7")[0]["hits"]
    assert {hit["id"]: hit["metadata"] for hit in hits} == {"a": {"id": "customer-7"}, "c": own}
    assert found(capsys, bundle, "year=2020") == "b"
    other = write(tmp_path / "d.jsonl", [{"id": "d", "text": "x", "year": 2020, "metadata": {"year": 2021}}])
    said = refusal(capsys, tmp_path, "add", bundle, other)
    assert 'line 1: "year" stands beside "metadata" and, with another value, in it; keep one of them' in said
