import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.data.examples import Examples, to_examples
from freemvmt.data.judgements import Judgements, from_pairs
from freemvmt.data.lines import json_lines
from freemvmt.data.readers.jsonl import read_jsonl
from freemvmt.data.readers.parquet import from_table, read_parquet
from freemvmt.data.readers.tsv import read_tsv
from freemvmt.errors import UserError

from rows import make_rows

Row = tuple[str, list[str], list[str]]  # query, passages that answer it, passages that do not


def plain(judgements: Judgements) -> list[Row]:
    rows: list[Row] = [(query, [], []) for query in judgements.queries.to_pylist()]
    for passage, row, label in zip(judgements.passages.to_pylist(), judgements.rows, judgements.labels, strict=True):
        rows[row][1 if label else 2].append(passage)
    return rows


def as_lists(examples: Examples) -> tuple[list[str], list[str], list[int], list[int]]:
    return examples.queries, examples.passages, examples.positives.ids.tolist(), examples.negatives.ids.tolist()


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, **options)
    return path


def ms_marco(rows: int = 20) -> tuple[list[dict[str, Any]], list[Row]]:
    records = make_rows(rows)
    records[3]["passages"]["is_selected"] = [0, 0, 0]
    records[5]["passages"] = {"is_selected": [], "passage_text": [], "url": []}
    records[7]["passages"]["is_selected"] = [1, 1, 0]
    wanted: list[Row] = []
    for record in records:
        pairs = list(zip(record["passages"]["passage_text"], record["passages"]["is_selected"], strict=True))
        wanted.append((record["query"], [t for t, mark in pairs if mark], [t for t, mark in pairs if not mark]))
    return records, wanted


def test_ms_marco_rows_from_parquet_and_from_jsonl_give_equal_examples(tmp_path: Path) -> None:
    records, wanted = ms_marco()
    lines = write_jsonl(tmp_path / "rows.jsonl", records)
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "rows.parquet", row_group_size=6)
    for rows in (None, 1, 6, 7, 19, 20, 1000):
        from_lines = read_jsonl(lines, rows, "query", "passage")
        from_columns = read_parquet(tmp_path / "rows.parquet", rows, "query", "passage")
        assert plain(from_lines) == plain(from_columns) == wanted[:rows]
        assert as_lists(to_examples(from_lines, "lines")) == as_lists(to_examples(from_columns, "columns"))


def test_passages_are_the_same_from_the_dictionary_of_a_file_and_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, wanted = ms_marco()
    for name, options in {"numbered": {}, "plain": {"use_dictionary": False}}.items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=7, **options)
        whole = read_parquet(path, None, "query", "passage")
        with monkeypatch.context() as patch:
            patch.setattr("freemvmt.data.readers.parquet._MAX_GROUP", 0)  # no row group is small enough
            by_rows = read_parquet(path, None, "query", "passage")
        assert plain(whole) == plain(by_rows) == wanted
        assert as_lists(to_examples(whole, "whole")) == as_lists(to_examples(by_rows, "by rows"))


@pytest.mark.parametrize(
    ("indices", "words"),
    [([0, 1, 2, 1], ["x", "y", "x"]), ([2, 0, 2, 0], ["y", None, "x"])],
    ids=["a text twice", "a null that no row has"],
)
def test_a_dictionary_with_a_text_twice_or_a_null_gives_each_text_once(
    indices: list[int], words: list[str | None]
) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int8()), pa.array(words))
    offsets = pa.array([0, 2, 4], pa.int32())
    passages = pa.StructArray.from_arrays(
        [pa.ListArray.from_arrays(offsets, pa.array([1, 0, 0, 1])), pa.ListArray.from_arrays(offsets, texts)],
        ["is_selected", "passage_text"],
    )
    judgements = from_table(pa.table({"query": ["a", "b"], "passages": passages}), "here", "query", "passage")
    assert plain(judgements) == [("a", ["x"], ["y"]), ("b", ["y"], ["x"])]
    assert sorted(judgements.passages.dictionary.to_pylist()) == ["x", "y"]


def test_a_null_in_the_dictionary_of_a_row_is_named() -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int32()), pa.array(["x"]))
    offsets = pa.array([0, 1, 2], pa.int32())
    passages = pa.StructArray.from_arrays(
        [pa.ListArray.from_arrays(offsets, pa.array([1, 1])), pa.ListArray.from_arrays(offsets, texts)],
        ["is_selected", "passage_text"],
    )
    with pytest.raises(UserError, match='row 2: "passage_text" is null'):
        from_table(pa.table({"query": ["a", "b"], "passages": passages}), "here", "query", "passage")


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("mark", [pa.int8(), pa.int64(), pa.bool_(), pa.float32()], ids=str)
def test_ms_marco_columns_of_every_width_are_read(large: bool, mark: pa.DataType) -> None:
    records, wanted = ms_marco()
    text, list_of = (pa.large_string(), pa.large_list) if large else (pa.string(), pa.list_)
    passages = pa.struct({"url": list_of(text), "passage_text": list_of(text), "is_selected": list_of(mark)})
    for record in records:
        marks = record["passages"]["is_selected"]
        record["passages"]["is_selected"] = list(map({pa.bool_(): bool, pa.float32(): float}.get(mark, int), marks))
    table = pa.Table.from_pylist(records, pa.schema({"passages": passages, "query": text}))
    chunked = pa.concat_tables([table.slice(0, 4), table.slice(4, 9), table.slice(13)])
    for source in (table, chunked):
        assert plain(from_table(source, "here", "query", "passage")) == wanted
    assert plain(from_table(table.slice(4, 9), "here", "query", "passage")) == wanted[4:13]


def test_pairs_from_parquet_take_their_fields_by_name_and_a_negative(tmp_path: Path) -> None:
    columns = {"number": [1, 2], "question": ["a", "b"], "answer": ["x", "y"], "negative": ["n", "m"]}
    path = write_parquet(tmp_path / "pairs.parquet", columns)
    wanted = [("a", ["x"], ["n"]), ("b", ["y"], ["m"])]
    assert plain(read_parquet(path, None, "question", "answer")) == wanted
    assert plain(read_parquet(path, 1, "question", "answer")) == wanted[:1]
    del columns["negative"]
    plainer = write_parquet(tmp_path / "plainer.parquet", columns)
    assert plain(read_parquet(plainer, None, "question", "answer")) == [("a", ["x"], []), ("b", ["y"], [])]


def test_no_row_more_than_asked_for_is_read_of_a_large_table(tmp_path: Path) -> None:
    numbers = list(map(str, range(140_000)))
    path = write_parquet(tmp_path / "pairs.parquet", {"query": numbers, "passage": numbers}, row_group_size=50_000)
    judgements = read_parquet(path, 70_001, "query", "passage")
    assert judgements.queries.to_pylist() == judgements.passages.to_pylist() == numbers[:70_001]


def test_pairs_from_jsonl_take_their_fields_by_name_and_a_negative(tmp_path: Path) -> None:
    records = [
        {"question": "a", "answer": "x", "negative": "n"},
        {"answer": "y", "question": "b"},
        {"question": "7", "answer": "0.5", "negative": None},
        {"question": "c", "answer": "z", "negative": ["m", "n"]},
    ]
    path = write_jsonl(tmp_path / "pairs.jsonl", records)
    wanted = [("a", ["x"], ["n"]), ("b", ["y"], []), ("7", ["0.5"], []), ("c", ["z"], ["m", "n"])]
    assert plain(read_jsonl(path, None, "question", "answer")) == wanted
    assert plain(read_jsonl(path, 2, "question", "answer")) == wanted[:2]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("a\tx\nb\ty\n", [("a", ["x"], []), ("b", ["y"], [])]),
        ("a\tx\tn\nb\ty\tm\n", [("a", ["x"], ["n"]), ("b", ["y"], ["m"])]),
        ("\ufeffa\tx\r\n\r\nb\ty", [("a", ["x"], []), ("b", ["y"], [])]),
        (' a "q" \tx, y \n', [(' a "q" ', ["x, y "], [])]),
    ],
    ids=["pairs", "triples", "from Windows", "quotes and commas"],
)
def test_tab_separated_pairs_and_triples_are_read(tmp_path: Path, content: str, wanted: list[Row]) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content.encode())
    assert plain(read_tsv(path, None, "query", "passage")) == wanted
    assert plain(read_tsv(path, 1, "query", "passage")) == wanted[:1]


def test_blank_lines_count_for_the_line_number_but_not_for_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('\n{"query": "a", "passage": "x"}\n \n{"query": "b", "passage": "y"}\n{"query": 1}\n')
    assert [query for query, _, _ in plain(read_jsonl(path, 2, "query", "passage"))] == ["a", "b"]
    with pytest.raises(UserError, match="line 5: no field"):
        read_jsonl(path, None, "query", "passage")


def test_half_a_surrogate_pair_becomes_the_replacement_character_and_a_whole_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        '{"query": "a \\ud800", "passage": "\\uDFFF \\ud83e\\uddea é"}\n{"query": "\\\\ud800", "passage": "x"}'
    )
    assert plain(read_jsonl(path, None, "query", "passage")) == [
        ("a \ufffd", ["\ufffd \U0001f9ea é"], []),
        ("\\ud800", ["x"], []),
    ]
    assert next(record for _, record in json_lines(path))["query"] == "a \ufffd"


def test_joined_judgements_stand_one_behind_the_other() -> None:
    parts: list[list[Row]] = [[("a", ["x"], []), ("b", [], ["y", "z"])], [], [("a", ["y", "x"], ["w"])]]
    assert plain(Judgements.join([from_pairs(part) for part in parts])) == [row for part in parts for row in part]


def test_a_wrong_column_is_answered_with_the_one_it_may_be(tmp_path: Path) -> None:
    lines = write_jsonl(tmp_path / "pairs.jsonl", [{"id": 1, "question": "a", "answer": "x"}])
    columns = write_parquet(tmp_path / "pairs.parquet", {"id": [1], "question": ["a"], "answer": ["x"]})
    for read, path in ((read_jsonl, lines), (read_parquet, columns)):
        with pytest.raises(UserError, match=r'"query" \(found "id", "question", "answer"\).*--query-field question$'):
            read(path, None, "query", "passage")
        with pytest.raises(UserError, match=r'"passage" \(found "id", "question", "answer"\).*--passage-field answer$'):
            read(path, None, "question", "passage")


def test_a_damaged_parquet_file_is_refused_or_read_but_nothing_else_happens(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ms_marco()[0]), tmp_path / "sound.parquet", compression="snappy")
    sound, draw, refused = (tmp_path / "sound.parquet").read_bytes(), random.Random(0), 0
    path = tmp_path / "damaged.parquet"
    for _ in range(300):
        damaged = bytearray(sound)
        for _ in range(draw.choice([1, 3])):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged[: draw.randrange(len(damaged))] if draw.random() < 0.1 else damaged)
        try:
            read_parquet(path, draw.choice([None, 5]), "query", "passage")
        except UserError:
            refused += 1
    assert refused > 50


def test_damaged_lines_are_refused_or_read_but_nothing_else_happens(tmp_path: Path) -> None:
    sound = write_jsonl(tmp_path / "sound.jsonl", ms_marco()[0][:8]).read_bytes()
    draw, refused, path = random.Random(0), 0, tmp_path / "damaged.jsonl"
    for _ in range(500):
        damaged = bytearray(sound)
        damaged[draw.randrange(len(damaged))] = draw.choice(b'"{}[]\\,:0-\n\x00\xffn')
        path.write_bytes(damaged)
        try:
            read_jsonl(path, None, "query", "passage")
        except UserError as error:
            assert "damaged.jsonl, line " in str(error)  # noqa: PT017
            refused += 1
    assert refused > 50
