import json
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.data.readers.beir import beir, read_documents
from freemvmt.data.readers.msmarco import ms_marco_tsv, qrels_file_of
from freemvmt.data.readers.qrels import read_qrels
from freemvmt.errors import UserError

from refusals import refusal

DOCUMENTS = [
    {"_id": "d1", "title": "Tower", "text": "tall", "metadata": {}},
    {"_id": "d2", "title": "", "text": "short"},
    {"_id": 3, "text": "no title"},
    {"_id": "d4", "title": None, "text": ""},
]
QUERIES = [{"_id": "q1", "text": "what is tall"}, {"_id": "q2", "text": "what is short"}, {"_id": "q3", "text": "none"}]


def write(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BEIR folder without qrels."""
    write(tmp_path / "beir" / "corpus.jsonl", lines(DOCUMENTS))
    write(tmp_path / "beir" / "queries.jsonl", lines(QUERIES))
    return tmp_path / "beir"


@pytest.mark.parametrize("part", ["train", "dev", "test"])
@pytest.mark.parametrize("header", ["query-id\tcorpus-id\tscore\n", ""], ids=["header", "no header"])
@pytest.mark.parametrize("between", ["\t", "\t0\t", "\tQ0\t"], ids=["three columns", "TREC", "TREC with Q0"])
def test_a_beir_folder_gives_graded_judgements_of_a_split(folder: Path, part: str, header: str, between: str) -> None:
    judgements = [("q2", "d2", 2), ("q2", "3", 1), ("q1", "d1", 1), ("q1", "d2", 0)]
    content = "".join(f"{query}{between}{document}\t{grade}\n" for query, document, grade in judgements)
    if between != "\t":
        header = header.replace("\tcorpus-id", "\titeration\tcorpus-id")
    write(folder / "qrels" / f"{part}.tsv", header + content)
    collection = beir(folder, part)
    assert collection.name == "beir"
    assert collection.document_ids == ["d1", "d2", "3", "d4"]
    assert collection.documents == ["Tower tall", "short", "no title", ""]
    assert (collection.query_ids, collection.queries) == (["q1", "q2"], ["what is tall", "what is short"])
    assert collection.qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2, "3": 1}}
    assert not collection.pools


def test_judgements_of_what_is_unknown_are_counted_and_left_out(folder: Path, log: pytest.LogCaptureFixture) -> None:
    content = "q1\td1\t1\nq1\tunknown\t1\nunknown\td1\t1\nq2\td9\t1\nq3\td1\t0\n"
    path = write(folder / "qrels" / "test.tsv", content)
    assert beir(folder, "test").qrels == {"q1": {"d1": 1}}
    (said,) = log.records
    assert said.levelname == "WARNING"
    assert said.getMessage().startswith(f"{path}: 4 of 5 judgements left out: ")
    assert said.getMessage().endswith(
        "1 of an unknown query, 2 of an unknown document, 1 of a query without a known relevant document"
    )


@pytest.mark.parametrize("content", ["q1\tunknown\t1\n", "unknown\td1\t1\n", "q1\td1\t0\n", "q1\td1\t-1\n"], ids=repr)
def test_no_judgement_of_what_is_known_is_an_error(folder: Path, content: str) -> None:
    write(folder / "qrels" / "test.tsv", content)
    with pytest.raises(UserError, match=r"test\.tsv: none of 1 judgement names a known query"):
        beir(folder, "test")


def test_a_split_that_is_not_there_is_an_error_that_names_those_that_are(folder: Path) -> None:
    for part in ("dev", "train"):
        write(folder / "qrels" / f"{part}.tsv", "q1\td1\t1\n")
    with pytest.raises(UserError, match=r"splits found: dev, train\); .*--split"):
        beir(folder, "test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("q1\td1\t1\nq1\td2\thigh\n", "line 2: the grade 'high' is not a whole number"),
        ("q1\td1\t1\nq1\td2\t1.5\n", "line 2: the grade '1.5' is not a whole number"),
        (f"q1\td1\t{'9' * 30}\n", "line 1: the grade '99999999999999999999' is not a whole number, at most 1,000,000"),
        (f"q1\td1\t1\nq1\td1\t{'9' * 5000}\n", "line 2: the grade"),
        ("q1\td1\t1\n\nq1\td1\n", "line 3: 2 tab-separated fields, not the 3 of the first line; mend"),
        ("q1 0 d1 1 x\n", "line 1: 5 tab-separated fields"),
        ("", "holds no judgement"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgement"),
    ],
    ids=["word", "fraction", "vast", "vaster", "two fields", "five fields", "empty", "header only"],
)
def test_qrels_that_are_not_sound_are_an_error_of_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "qrels.tsv", content)
    with pytest.raises(UserError) as raised:
        read_qrels(path)
    assert str(raised.value).startswith(f"{path}")
    assert message in str(raised.value)
    assert len(str(raised.value)) < len(str(path)) + 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "corpus.jsonl is empty"),
        (
            '{"_id": "1", "text": "a"}\n{"_id": "1", "text": "b"}\n',
            "line 2: the document '1' stands twice, first at line 1; keep one of them",
        ),
        ('{"_id": "1", "text": "a"}\n{"_id": 2.0, "text": "b"}\n', 'line 2: "_id" holds the number 2.0, not an id'),
        (
            '{"_id": "1", "title": "a"}\n',
            'line 1: no text in a field "text" (fields: "_id", "title"); give each document',
        ),
        ('{"_id": "1", "text": ["a"]}\n', 'line 1: "text" holds a list, not text'),
        ('{"_id": "1", "title": {}, "text": "a"}\n', 'line 1: "title" holds an object, not text'),
    ],
    ids=["empty", "ids repeat", "id is a fraction", "no text", "text is a list", "title is an object"],
)
def test_a_corpus_that_is_not_sound_is_an_error_of_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = write(tmp_path / "corpus.jsonl", content)
    with pytest.raises(UserError) as raised:
        read_documents(path)
    assert message in str(raised.value)


@pytest.fixture
def ms_marco(tmp_path: Path) -> Path:
    """MS MARCO's own files, with a small dev split under its published name."""
    folder = tmp_path / "msmarco"
    write(folder / "collection.tsv", "0\tfirst passage\n1\tsecond passage\n2\tthird\n")
    write(folder / "queries.train.tsv", "10\tfirst\n11\tsecond\n12\tunjudged\n")
    write(folder / "qrels.train.tsv", "11\t0\t1\t1\n10\t0\t0\t1\n")
    write(folder / "queries.dev.small.tsv", "20\tthird\n")
    write(folder / "queries.dev.tsv", "20\twrong\n")
    write(folder / "qrels.dev.small.tsv", "20\t0\t2\t1\n")
    return folder


def test_ms_marcos_own_files_give_a_collection_of_a_split(ms_marco: Path) -> None:
    train = ms_marco_tsv(ms_marco, "train")
    assert train.documents == ["first passage", "second passage", "third"]
    assert train.queries == ["first", "second"]
    assert train.qrels == {"10": {"0": 1}, "11": {"1": 1}}
    dev = ms_marco_tsv(ms_marco, "dev")
    assert (dev.queries, dev.qrels) == (["third"], {"20": {"2": 1}})


def test_the_whole_split_stands_before_a_part_of_it(ms_marco: Path) -> None:
    write(ms_marco / "qrels.dev.tsv", "20\t0\t1\t1\n")
    assert ms_marco_tsv(ms_marco, "dev").qrels == {"20": {"1": 1}}
    assert qrels_file_of(ms_marco, ("validation", "dev")) == ms_marco / "qrels.dev.tsv"
    assert qrels_file_of(ms_marco, ("test",)) is None


def test_queries_of_a_part_may_stand_in_the_file_of_the_whole_split(ms_marco: Path) -> None:
    (ms_marco / "queries.dev.small.tsv").unlink()
    assert ms_marco_tsv(ms_marco, "dev").queries == ["wrong"]


def test_a_split_that_ms_marcos_files_lack_is_an_error_that_names_those_that_are(ms_marco: Path) -> None:
    with pytest.raises(UserError, match=r"no qrels\.test\.tsv \(found: qrels\.dev\.small\.tsv, qrels\.train\.tsv\)"):
        ms_marco_tsv(ms_marco, "test")


@pytest.mark.parametrize(("part", "year"), [("dl19", "2019"), ("dl20", "2020")])
def test_the_files_of_trecs_tracks_stand_beside_ms_marcos(ms_marco: Path, part: str, year: str) -> None:
    write(ms_marco / f"{year}qrels-pass.txt", "7 Q0 0 0\n7 Q0 2 3\n8 Q0 1 1\n")  # spaces, as published
    write(ms_marco / f"msmarco-test{year}-queries.tsv", "7\tseventh\n9\tunjudged\n8\teighth\n")
    found = ms_marco_tsv(ms_marco, part)
    assert found.queries == ["seventh", "eighth"]
    assert found.qrels == {"7": {"0": 0, "2": 3}, "8": {"1": 1}}


def test_a_folder_and_its_split_may_be_named_together(
    ms_marco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.txt"
    assert main(["evaluate", "bm25", f"{ms_marco}/dev", "--run", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 1
    assert run.read_text().startswith("20 Q0 2 1 ")
    assert main(["evaluate", "bm25", f"{ms_marco}/train"]) == 0
    assert "2 queries" in capsys.readouterr().out
    assert "no data set or path" in refusal(capsys, tmp_path, "evaluate", "bm25", f"{ms_marco}/test")
    assert "no data set or path" in refusal(capsys, tmp_path, "evaluate", "bm25", f"{'x' * 5000}/dev")
    assert "no data set or path" in refusal(capsys, tmp_path, "evaluate", "bm25", f"{ms_marco}/*")
