"""Data as people have it: nulls, NaN, headers, ids that stand twice, tables of pandas, files of others."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.cli import main
from freemvmt.config import DataConfig
from freemvmt.data.corpus import read_corpus, read_documents_once
from freemvmt.data.judgements import Judgements
from freemvmt.data.load import load_collection, training_files
from freemvmt.data.readers.beir import beir
from freemvmt.data.readers.jsonl import read_jsonl
from freemvmt.data.readers.msmarco import ms_marco_tsv
from freemvmt.data.readers.parquet import read_parquet
from freemvmt.data.readers.qrels import read_qrels
from freemvmt.data.readers.tsv import read_tsv
from freemvmt.data.streaming import ParquetRows, first_rows
from freemvmt.errors import UserError

from beir_folder import write_beir

Row = tuple[str, list[tuple[str, bool]]]
PAIRS = [
    {"query": f"query {n}", "passage": f"passage {n}", "negative": f"not {n}" if n % 3 else None} for n in range(9)
]
TRUE_PAIRS: list[Row] = [
    (
        str(pair["query"]),
        [(str(pair["passage"]), True), *([(str(pair["negative"]), False)] if pair["negative"] else [])],
    )
    for pair in PAIRS
]


def plain(judgements: Judgements) -> list[Row]:
    """Each row's query with its passages and their labels, in order."""
    texts = judgements.passages.to_pylist()
    found: list[Row] = [(query, []) for query in judgements.queries.to_pylist()]
    for row, text, label in zip(judgements.rows, texts, judgements.labels, strict=True):
        found[row][1].append((text, bool(label)))
    return found


def write_lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records))
    return path


def refused(read: Callable[[], object], *parts: str) -> None:
    with pytest.raises(UserError) as raised:
        read()
    said = str(raised.value)
    assert [part for part in parts if part not in said] == [], said
    assert "\n" not in said
    assert "; " in said


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "null", "1", "1.5", "true", '["x"]', "{}"])
@pytest.mark.parametrize("field", ["query", "passage", "text", "title", "_id"])
def test_what_is_no_text_and_no_id_is_refused_with_its_line_and_field(field: str, value: str, tmp_path: Path) -> None:
    sound = {"query": '"a"', "passage": '"b"', "text": '"c"', "_id": '"d"', "title": '"e"'}
    line = ", ".join(f'"{name}": {other}' for name, other in (sound | {field: value}).items())
    path = write_lines(tmp_path / "data.jsonl", [json.dumps(dict.fromkeys(sound, "x") | {"_id": "0"}), f"{{{line}}}"])
    if field in ("query", "passage"):
        refused(lambda: read_jsonl(path, None, "query", "passage"), f"{path}, line 2: ")
        return
    if (field, value) in (("_id", "1"), ("_id", "null"), ("title", "null")):  # a whole number; not there
        assert len(list(read_corpus(str(path)))) == 2
        return
    refused(lambda: list(read_corpus(str(path))), f"{path}, line 2: ")
    folder = write_beir(tmp_path / "beir", test=["q0 d0 1"])
    shutil.copy(path, folder / "corpus.jsonl")
    refused(lambda: beir(folder, "test"), "corpus.jsonl, line 2: ")


@pytest.mark.parametrize("value", ["NaN", "1.0", "true", '""', '" "', "[]", "null"])
def test_an_id_of_a_query_is_an_id(value: str, tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", test=["q0 d0 1", "7 d1 1"])
    queries = folder / "queries.jsonl"
    queries.write_text('{"_id": 7, "text": "seven"}\n')
    assert beir(folder, "test").query_ids == ["7"]
    queries.write_text(f'{{"_id": "q0", "text": "a"}}\n{{"_id": {value}, "text": "seven"}}\n')
    refused(lambda: beir(folder, "test"), "queries.jsonl, line 2: ")


@pytest.mark.parametrize("line", ['{"query": "a", "passage": "x", "query": "b"}', '{"a": {"b": 1, "b": 2}}'])
def test_a_name_twice_in_an_object_is_refused(line: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", [PAIRS[0], line])
    refused(lambda: read_jsonl(path, None, "query", "passage"), "line 2: not JSON", "stands twice in one object")


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


COLUMNS: dict[str, Callable[[list[str | None]], Any]] = {
    "text": pa.array,
    "large text": lambda texts: pa.array(texts, pa.large_string()),
    "a category": lambda texts: pa.array(texts).dictionary_encode(),
    "views": lambda texts: pa.array(texts, pa.string_view()),
    "a category of large text": lambda texts: pa.array(texts, pa.large_string()).dictionary_encode(),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_texts_of_every_type_that_parquet_has_are_texts(kind: str, tmp_path: Path) -> None:
    columns = {name: COLUMNS[kind]([pair[name] for pair in PAIRS]) for name in PAIRS[0]}
    path = parquet(tmp_path / "pairs.parquet", columns)
    assert plain(read_parquet(path, None, "query", "passage")) == TRUE_PAIRS
    assert plain(first_rows(ParquetRows([[path]], None, "query", "passage"), 99)) == TRUE_PAIRS
    corpus = parquet(tmp_path / "corpus.parquet", {"text": columns["passage"], "shelf": columns["query"]})
    assert [(d.text, d.metadata["shelf"]) for d in read_corpus(str(corpus))] == [
        (pair["passage"], pair["query"]) for pair in PAIRS
    ]


def test_a_negative_of_null_is_none_and_a_list_is_several(tmp_path: Path) -> None:
    absent = [{name: value for name, value in pair.items() if value is not None} for pair in PAIRS]
    listed = [pair | {"negative": [] if pair["negative"] is None else [pair["negative"]]} for pair in PAIRS]
    for records in (PAIRS, absent, listed):
        path = write_lines(tmp_path / "pairs.jsonl", records)
        assert plain(read_jsonl(path, None, "query", "passage")) == TRUE_PAIRS
    columns = {name: [pair[name] for pair in listed] for name in listed[0]}
    assert plain(read_parquet(parquet(tmp_path / "p.parquet", columns), None, "query", "passage")) == TRUE_PAIRS
    columns["negative"] = pa.nulls(len(listed))
    found = read_parquet(parquet(tmp_path / "p.parquet", columns), None, "query", "passage")
    assert plain(found) == [(query, passages[:1]) for query, passages in TRUE_PAIRS]


OBJECTS = [
    [{"is_selected": int(p == n % 2), "passage_text": f"p{n}{p}", "url": "u"} for p in range(2)] for n in range(5)
]
LISTS = [{name: [passage[name] for passage in row] for name in row[0]} for row in OBJECTS]
_OBJECT = pa.struct([("is_selected", pa.int32()), ("passage_text", pa.string()), ("url", pa.string())])
SHAPES: dict[str, tuple[list[Any], pa.DataType | None]] = {
    "objects": (OBJECTS, None),
    "lists": (LISTS, None),
    "large objects": (OBJECTS, pa.large_list(_OBJECT)),
    "marks that are true": (
        [[passage | {"is_selected": bool(passage["is_selected"])} for passage in row] for row in OBJECTS],
        None,
    ),
    "marks as floats": ([row | {"is_selected": [float(mark) for mark in row["is_selected"]]} for row in LISTS], None),
    "lists of views": (
        LISTS,
        pa.struct([("is_selected", pa.large_list(pa.int8())), ("passage_text", pa.list_(pa.string_view()))]),
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_ms_marco_are_read_in_both_shapes(shape: str, tmp_path: Path) -> None:
    passages, kind = SHAPES[shape]
    wanted = [(f"q{n}", [(f"p{n}{p}", p == n % 2) for p in range(2)]) for n in range(5)]
    rows = [{"query": f"q{n}", "passages": row} for n, row in enumerate(passages)]
    lines = write_lines(tmp_path / "rows.jsonl", rows)
    assert plain(read_jsonl(lines, None, "query", "passage")) == wanted
    path = parquet(
        tmp_path / "rows.parquet", {"query": [row["query"] for row in rows], "passages": pa.array(passages, kind)}
    )
    assert plain(read_parquet(path, None, "query", "passage")) == wanted
    assert plain(first_rows(ParquetRows([[path]], None, "query", "passage"), 99)) == wanted


@pytest.mark.parametrize(
    ("header", "line", "wanted"),
    [
        ("query\tpassage", "a\tx", ("a", [("x", True)])),
        ("Query\tPassage\tNegative", "a\tx\tn", ("a", [("x", True), ("n", False)])),
        ("passage\tquery", "x\ta", ("a", [("x", True)])),
        ("\tquery\tpassage\tnote", "0\ta\tx\tz", ("a", [("x", True)])),
    ],
    ids=["pairs", "triples", "the other way round", "an index, and a note"],
)
def test_a_header_of_pairs_names_their_columns(header: str, line: str, wanted: Row, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "pairs.tsv", [header, line])
    assert plain(read_tsv(path, None, "query", "passage")) == [wanted]
    write_lines(path, [header, line, header])
    refused(lambda: read_tsv(path, None, "query", "passage"), "line 3: a header in the middle")


def test_a_header_of_documents_is_no_document(tmp_path: Path) -> None:
    for name, header in (("docs.tsv", "id\ttext"), ("docs.tsv", "doc_id\tTEXT"), ("docs.tsv", "text\tid")):
        fields = ["d1", "red pears"] if header.endswith(("text", "TEXT")) else ["red pears", "d1"]
        path = write_lines(tmp_path / name, [header, "\t".join(fields)])
        assert [(d.id, d.text) for d in read_corpus(str(path))] == [("d1", "red pears")]
    path = write_lines(tmp_path / "docs.tsv", ["d1\tred", "d2\tgreen\tpears in a bowl"])
    refused(lambda: list(read_corpus(str(path))), "line 2: 3 tab-separated fields, not the 2 of the first line")


QRELS = {
    "grade of a float": ("q0\td0\t1.0\nq1\td1\t1\n", "line 1: the grade '1.0'"),
    "a typo": ("q0\td0\tl\nq1\td1\t1\n", "line 1: the grade 'l'"),
    "a float below": ("q0\td0\t1\nq1\td1\t1.0\n", "line 2: the grade '1.0'"),
    "twice": ("q0\td0\t1\nq1\td1\t1\nq0\td0\t0\n", "line 3", "stands twice, first at line 1"),
    "twice alike": ("q0 0 d0 1\nq0 0 d0 1\n", "line 2", "stands twice, first at line 1"),
    "header in the middle": ("q0\td0\t1\nquery-id\tcorpus-id\tscore\n", "line 2: a header in the middle"),
    "another width": ("q0\td0\t1\nq1\t0\td1\t1\n", "line 2: 4 tab-separated fields, not the 3"),
}


@pytest.mark.parametrize("case", QRELS)
def test_judgements_are_checked_from_the_first_line_on(case: str, tmp_path: Path) -> None:
    content, *parts = QRELS[case]
    path = tmp_path / "qrels.tsv"
    path.write_text(content)
    refused(lambda: read_qrels(path), *parts)


@pytest.mark.parametrize(
    "start", ["", "\n", "\ufeff", "\ufeffquery-id\tcorpus-id\tscore\r\n", "\n\nqid\tdocid\tgrade\n"]
)
def test_a_first_line_that_is_no_header_counts(start: str, tmp_path: Path) -> None:
    path = tmp_path / "qrels.tsv"
    path.write_text(f"{start}q0\td0\t1\n\nq1\td1\t-1\n", "utf-8")
    assert read_qrels(path) == {"q0": {"d0": 1}, "q1": {"d1": -1}}


def test_an_id_that_stands_twice_is_refused_with_both_lines(tmp_path: Path, tiny_base: str) -> None:
    folder = write_beir(tmp_path / "beir", test=["q0 d0 1"])
    with (folder / "queries.jsonl").open("a") as file:
        file.write('\n{"_id": "q3", "text": "another"}\n')
    refused(lambda: beir(folder, "test"), "queries.jsonl, line 12: the query 'q3' stands twice, first at line 4")
    corpus = write_lines(
        tmp_path / "c.jsonl", [{"id": 1, "text": "a"}, {"id": "2", "text": "b"}, {"id": "1", "text": "c"}]
    )
    both = f"{corpus}, line 3: the document '1' stands twice, first at line 1"
    refused(lambda: read_documents_once(str(corpus)), both)
    shutil.copy(corpus, folder / "corpus.jsonl")
    (folder / "queries.jsonl").write_text('{"_id": "q0", "text": "a"}\n')
    refused(lambda: beir(folder, "test"), "corpus.jsonl, line 3: the document '1' stands twice, first at line 1")

    marco = tmp_path / "marco"
    marco.mkdir()
    for name, lines in (
        ("collection.tsv", ["10\ta", "11\tb", "10\tc"]),
        ("queries.dev.tsv", ["1\tx", "2\ty"]),
        ("qrels.dev.tsv", ["1\t0\t10\t1"]),
    ):
        write_lines(marco / name, lines)
    refused(
        lambda: ms_marco_tsv(marco, "dev"), "collection.tsv, line 3: the document '10' stands twice, first at line 1"
    )
    write_lines(marco / "collection.tsv", ["10\ta"])
    write_lines(marco / "queries.dev.tsv", ["1\tx", "1\ty"])
    refused(lambda: ms_marco_tsv(marco, "dev"), "queries.dev.tsv, line 2: the query '1' stands twice, first at line 1")


@pytest.mark.parametrize("command", ["index", "encode"])
def test_commands_name_both_lines_of_an_id(
    command: str, tmp_path: Path, tiny_base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from freemvmt.config import ModelConfig
    from freemvmt.model import TwoTowersModel

    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    corpus = write_lines(tmp_path / "c.jsonl", [{"id": n % 4, "text": f"text {n}"} for n in range(5)])
    assert main([command, str(tmp_path / "model"), str(corpus), "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{corpus}, line 5: the document '0' stands twice, first at line 1; keep one of them" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "tsv"])
def test_evaluate_reads_a_corpus_as_index_does(ending: str, tmp_path: Path) -> None:
    """Whatever a file holds, it is the same documents for both, or refused in the same words."""
    from freemvmt.data.readers.beir import read_documents

    values = ["x", "", " ", "a\ttab", None, 7, "7", 1.5, True, "é"]
    seen = {True: 0, False: 0}
    for id in values:
        for title in ("t", None, 3):
            path = tmp_path / f"corpus.{ending}"
            if ending == "jsonl":
                write_lines(path, [{"_id": id, "title": title, "text": "some"}])
            elif ending == "tsv":
                path.write_text(f"{id}\t{title}\tsome\n")
            else:
                parquet(path, {"_id": [id], "title": [title], "text": ["some"]})
            by_index, by_evaluate = (
                _outcome(read, path) for read in (lambda p: list(read_corpus(str(p))), read_documents)
            )
            if isinstance(by_index, list):
                assert by_evaluate == tuple([getattr(d, name) for d in by_index] for name in ("id", "title", "content"))
            else:
                assert by_evaluate == by_index
            seen[isinstance(by_index, list)] += 1
    assert all(seen.values())


def _outcome(read: Callable[[Path], Any], path: Path) -> Any:
    try:
        return read(path)
    except UserError as error:
        return str(error)


STRAYS = ("._pairs.jsonl", ".DS_Store", ".hidden.jsonl", "Thumbs.db", ".nfs0001.jsonl")


def test_files_of_systems_are_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_lines(folder / "pairs.jsonl", PAIRS)
    for name in STRAYS:
        (folder / name).write_bytes(b"\x00\x05\x16\x07\xff")
    (folder / "@eaDir").mkdir()
    assert [path.name for path in training_files(folder)] == ["pairs.jsonl"]
    collection = write_beir(tmp_path / "beir", test=["q0 d0 1"])
    for place, name in ((collection, "._corpus.jsonl"), (collection / "qrels", "._test.tsv")):
        (place / name).write_bytes(b"\x00\x05\x16\x07\xff")
    assert beir(collection, "test").query_ids == ["q0"]
    refused(lambda: load_collection(str(collection), "dev", DataConfig()), "(splits found: test)")


@pytest.mark.parametrize("name", ["pairs.jsonl.gz", "pairs.jsonl", "pairs.tsv"])
def test_what_is_packed_is_to_be_unpacked(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(json.dumps(PAIRS[0]).encode()))
    refused(lambda: load_collection(str(path), "test", DataConfig()), "packed", "unpack it first")


def test_columns_that_pandas_adds_are_no_fields(tmp_path: Path) -> None:
    path = parquet(tmp_path / "c.parquet", {"text": ["a"], "year": [1990], "__index_level_0__": [4]})
    assert [document.metadata for document in read_corpus(str(path))] == [{"year": 1990}]
