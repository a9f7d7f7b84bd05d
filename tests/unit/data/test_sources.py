import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from freemvmt.config import DataConfig
from freemvmt.data.collection import Collection
from freemvmt.data.examples import Examples
from freemvmt.data.load import Dataset, NothingToLearnError, load, load_collection
from freemvmt.data.values import folded
from freemvmt.errors import UserError

from beir_folder import write_beir
from rows import make_rows, write_rows


def loaded(*paths: Path, **options: Any) -> Dataset:
    return load(DataConfig(dataset=tuple(map(str, paths)), **options))


def tsv(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def pairs(path: Path, first: int, last: int) -> Path:
    return tsv(path, *(f"query {number}\tpassage {number}" for number in range(first, last)))


def answers(data: Examples) -> dict[str, list[str]]:
    return {query: [data.passages[n] for n in data.positives[number]] for number, query in enumerate(data.queries)}


def judged(collection: Collection) -> dict[str, list[str]]:
    """The texts that answer each query."""
    texts = dict(zip(collection.document_ids, collection.documents, strict=True))
    queries = dict(zip(collection.query_ids, collection.queries, strict=True))
    return {
        queries[query]: [texts[document] for document, grade in grades.items() if grade > 0]
        for query, grades in collection.qrels.items()
    }


def assert_apart(data: Dataset) -> None:
    assert not {*map(folded, data.train.queries)} & {*map(folded, data.validation.queries)}


def test_a_file_is_split_into_training_and_validation_over_all_its_passages(tmp_path: Path) -> None:
    data = loaded(write_rows(tmp_path / "rows.jsonl", 50), validation_fraction=0.2)
    assert data.name == str(tmp_path / "rows.jsonl")
    assert (len(data.train.queries), len(data.validation.queries)) == (40, 10)
    assert len(data.validation.documents) == 150  # also those of the rows that are trained on
    assert_apart(data)


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.jsonl", 50)
    first, again, other = (loaded(path, seed=seed).validation.queries for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_parquet_and_jsonl_of_the_same_rows_give_the_same_data(tmp_path: Path) -> None:
    lines = write_rows(tmp_path / "rows.jsonl", 30)
    pq.write_table(pa.Table.from_pylist(make_rows(30)), tmp_path / "rows.parquet")
    first, second = loaded(lines), loaded(tmp_path / "rows.parquet")
    assert first.train.queries == second.train.queries
    assert first.train.passages == second.train.passages
    assert first.validation.fingerprint() == second.validation.fingerprint()


def test_every_format_of_the_same_pairs_gives_the_same_data(tmp_path: Path) -> None:
    table = {"question": [f"query {n}" for n in range(20)], "answer": [f"passage {n}" for n in range(20)]}
    pq.write_table(pa.table(table), tmp_path / "pairs.parquet")
    records = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, records)))
    names = {"query_field": "question", "passage_field": "answer"}
    wanted = loaded(pairs(tmp_path / "pairs.tsv", 0, 20))
    for path in (tmp_path / "pairs.parquet", tmp_path / "pairs.jsonl"):
        data = loaded(path, **names)
        assert answers(data.train) == answers(wanted.train)
        assert data.validation.fingerprint() == wanted.validation.fingerprint()


def test_at_most_max_samples_rows_are_read_of_each_data_set(tmp_path: Path) -> None:
    first, second = pairs(tmp_path / "a.tsv", 0, 50), pairs(tmp_path / "b" / "train-0.tsv", 100, 106)
    pairs(tmp_path / "b" / "train-1.tsv", 106, 150)
    data = loaded(first, second.parent, max_samples=10)
    queries = {*data.train.queries, *data.validation.queries}
    assert queries == {f"query {number}" for number in (*range(10), *range(100, 110))}


def test_files_of_a_folder_are_told_apart_by_the_split_in_their_names(tmp_path: Path) -> None:
    pairs(tmp_path / "train-00000-of-00002.tsv", 0, 5)
    pairs(tmp_path / "train-00001-of-00002.tsv", 5, 10)
    pairs(tmp_path / "validation.tsv", 20, 23)
    pairs(tmp_path / "test_a.tsv", 30, 33)
    pairs(tmp_path / "trainer.tsv", 40, 43)
    (tmp_path / "README.md").write_text("not data")
    data = loaded(tmp_path)
    assert data.train.queries == [f"query {number}" for number in range(10)]
    assert data.validation.queries == ["query 20", "query 21", "query 22"]
    assert load_collection(str(tmp_path), "test", DataConfig()).queries == ["query 30", "query 31", "query 32"]
    with pytest.raises(
        UserError, match=r"has no files of a split 'dev'; give one of its files, such as test_a.tsv, or "
    ):
        load_collection(str(tmp_path), "dev", DataConfig())


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_validation_file_is_known_by_each_of_its_names(tmp_path: Path, name: str) -> None:
    pairs(tmp_path / "train.tsv", 0, 10)
    pairs(tmp_path / f"{name}.tsv", 20, 30)
    assert loaded(tmp_path, validation_queries=4).validation.queries == [f"query {number}" for number in range(20, 24)]


def test_a_folder_without_a_training_file_trains_on_all_but_what_is_there_to_measure_with(tmp_path: Path) -> None:
    pairs(tmp_path / "a.tsv", 0, 10)
    pairs(tmp_path / "b.tsv", 10, 20)
    pairs(tmp_path / "test.tsv", 20, 30)
    data = loaded(tmp_path)
    assert {*data.train.queries, *data.validation.queries} == {f"query {number}" for number in range(20)}


def test_a_query_of_the_validation_split_is_not_trained_on_in_any_spelling(tmp_path: Path) -> None:
    tsv(tmp_path / "train.tsv", "  What IS\u3000this\tx", "what is that\ty")
    tsv(tmp_path / "dev.tsv", "what is this\tz")
    data = loaded(tmp_path)
    assert answers(data.train) == {"what is that": ["y"]}
    assert_apart(data)


def test_nothing_left_to_train_on_is_an_error(tmp_path: Path) -> None:
    pairs(tmp_path / "train.tsv", 0, 2)
    pairs(tmp_path / "dev.tsv", 0, 3)
    with pytest.raises(UserError, match="every training query is a validation query too; give more rows"):
        loaded(tmp_path)


def test_several_data_sets_are_joined_and_measured_together(tmp_path: Path) -> None:
    folder = tmp_path / "with-dev"
    pairs(folder / "train.tsv", 0, 10)
    tsv(folder / "dev.tsv", "query 20\tpassage 20", "query 105\tpassage 105")
    file = pairs(tmp_path / "alone.tsv", 100, 120)
    data = loaded(folder, file, validation_fraction=0.2)
    assert data.name == f"{folder} + {file}"
    own, held_out = data.validation.queries[:2], data.validation.queries[2:]
    assert own == ["query 20", "query 105"]
    assert len(held_out) == 4
    assert all(int(query.removeprefix("query ")) >= 100 for query in held_out)  # from the file that has no dev split
    assert "query 105" not in data.train.queries
    assert_apart(data)
    assert {*data.train.queries, *data.validation.queries} == {f"query {n}" for n in (*range(10), 20, *range(100, 120))}
    passages = {f"passage {n}" for n in (20, *range(100, 120))}
    assert set(data.validation.documents) == passages  # what the two collections hold
    assert len(data.validation.documents) == len(passages)


def test_a_beir_folder_trains_on_train_and_is_measured_on_dev_over_its_whole_corpus(tmp_path: Path) -> None:
    folder = write_beir(
        tmp_path / "beir", train=["q0 d0 1", "q0 d1 2", "q1 d2 1", "q1 d3 0"], dev=["q5 d5 1", "q6 d6 1"]
    )
    data = loaded(folder)
    assert answers(data.train) == {"query 0": ["on 0", "on 1"], "query 1": ["on 2"]}
    assert [[data.train.passages[n] for n in data.train.negatives[q]] for q in (0, 1)] == [[], ["on 3"]]
    assert judged(data.validation) == {"query 5": ["on 5"], "query 6": ["on 6"]}
    assert len(data.validation.documents) == 10
    assert loaded(folder, validation_queries=1).validation.queries == ["query 5"]


def test_a_beir_folder_without_dev_holds_training_queries_out(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", train=[f"q{number} d{number} 1" for number in range(10)])
    data = loaded(folder, validation_fraction=0.3)
    assert (len(data.train.queries), len(data.validation.queries)) == (7, 3)
    assert_apart(data)


def test_a_beir_folder_without_a_training_split_teaches_by_its_text_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"), pytest.raises(NothingToLearnError, match="no title, no heading"):
        loaded(write_beir(tmp_path / "beir", test=["q0 d0 1"]))
    assert "has no training queries: titles, headings and first sentences stand in for them" in caplog.text


def test_ms_marcos_own_files_are_a_data_set(tmp_path: Path) -> None:
    tsv(tmp_path / "collection.tsv", *(f"{number}\tpassage {number}" for number in range(10)))
    tsv(tmp_path / "queries.train.tsv", "1\tone", "2\ttwo")
    tsv(tmp_path / "qrels.train.tsv", "1\t0\t1\t1", "2\t0\t2\t1")
    tsv(tmp_path / "queries.dev.small.tsv", "3\tthree")
    tsv(tmp_path / "qrels.dev.small.tsv", "3\t0\t3\t1")
    data = loaded(tmp_path)
    assert answers(data.train) == {"one": ["passage 1"], "two": ["passage 2"]}
    assert judged(data.validation) == {"three": ["passage 3"]}
    assert len(data.validation.documents) == 10
    assert load_collection(str(tmp_path), "dev", DataConfig()).qrels == {"3": {"3": 1}}


def test_the_collection_of_a_beir_folder_keeps_ids_grades_and_the_whole_corpus(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "beir", test=["q0 d0 2", "q0 d1 1", "q3 d3 0", "q4 d4 1"])
    collection = load_collection(str(folder), "test", DataConfig())
    assert collection.qrels == {"q0": {"d0": 2, "d1": 1}, "q4": {"d4": 1}}
    assert len(collection.document_ids) == len(collection.documents) > len(collection.qrels)


def test_the_pool_of_a_row_is_what_the_row_holds(tmp_path: Path) -> None:
    records = make_rows(12)
    collection = load_collection(str(write_rows(tmp_path / "rows.jsonl", 12)), "test", DataConfig())
    texts = dict(zip(collection.document_ids, collection.documents, strict=True))
    for record, query in zip(records, collection.query_ids, strict=True):
        pool = sorted(texts[document] for document in collection.pools[query])
        assert pool == sorted(record["passages"]["passage_text"])


def test_rows_without_an_answer_are_counted_and_left_out(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    records = make_rows(20)
    for record in records[:3]:
        record["passages"]["is_selected"] = [0, 0, 0]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(records), path)
    data = loaded(path)
    assert len(data.train.queries) + len(data.validation.queries) == 17
    assert log.messages[0] == f"{path}: 3 rows have no passage that answers the query; left out"
    assert log.messages[1].startswith("held out for validation: 2 of 17 queries, by seed 0")


def test_a_folder_of_save_to_disk_is_told_how_to_become_a_file(tmp_path: Path) -> None:
    columns = {"query": ["a"], "passage": ["b"]}
    data = datasets.Dataset.from_dict(columns)
    data.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "all")
    for name, call in (
        ("one", r"load_from_disk\('FOLDER'\).to_parq"),
        ("all", r"load_from_disk\('FOLDER'\)\['train'\].to_"),
    ):
        with pytest.raises(UserError, match=call):
            loaded(tmp_path / name)
        with pytest.raises(UserError, match=call):
            load_collection(str(tmp_path / name), "test", DataConfig())


def test_judgements_without_their_documents_name_the_file_that_is_missing(tmp_path: Path) -> None:
    write_beir(tmp_path)
    (tmp_path / "corpus.jsonl").unlink()
    with pytest.raises(UserError, match=r"holds no corpus.jsonl; beside queries.jsonl and qrels/ give the documents"):
        loaded(tmp_path)
    with pytest.raises(UserError, match=r"no files of a split 'test'; beside queries.jsonl and qrels/ give"):
        load_collection(str(tmp_path), "test", DataConfig())


def test_the_folder_that_one_is_in_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "trials"
    write_beir(folder, test=["q0 d0 1"])
    monkeypatch.chdir(folder)
    assert load_collection(".", "test", DataConfig()).name == "trials"
    monkeypatch.chdir(folder / "qrels")
    assert load_collection("..", "test", DataConfig()).name == "trials"


def test_a_text_that_is_a_list_is_told_to_become_lines(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"query": "a", "passage": ["x", "y"]}')
    pq.write_table(pa.table({"query": ["a"], "passage": [["x", "y"]]}), tmp_path / "a.parquet")
    for name, hint in (
        ("a.jsonl", "write a line for each text in it"),
        ("a.parquet", "write a row for each text in it"),
    ):
        with pytest.raises(UserError, match=hint):
            loaded(tmp_path / name)


def test_an_ending_that_is_not_read_names_the_way_to_one_that_is(tmp_path: Path) -> None:
    for name, hint in (
        ("a.csv", r"read_csv\('NAME.csv'\).to_json"),
        ("a.json", "jq -c"),
        ("a.ndjson", "rename"),
        ("a.x", ""),
    ):
        (tmp_path / name).write_text("")
        with pytest.raises(UserError, match=f"is not known; give .parquet, .jsonl or .tsv.*{hint}"):
            loaded(tmp_path / name)


LONG = "It lifts the water of the lower basin to the upper one, day and night, and is oiled on each first of a month."


def test_as_documents_reads_the_corpus_beside_files_and_fields_of_data(tmp_path: Path) -> None:
    section = "\n\n".join(f"# Part {number}\n\nAbout pump number {number} of the works. {LONG}" for number in range(8))
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.md").write_text(section.replace("Part", f"Part {name}"))
    tsv(tmp_path / "results.tsv", "run\tscore", "1\t0.5")
    documents = load(DataConfig(dataset=(str(tmp_path),)), as_documents=True)
    assert any("Part a 1" in query for query in (*documents.train.queries, *documents.validation.queries))
    records = [
        {"text": f"On pump {number} of the works. {LONG}", "title": f"T {number}", "by": "me"} for number in range(40)
    ]
    (tmp_path / "more.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert load(DataConfig(dataset=(str(tmp_path / "more.jsonl"),)), as_documents=True).train.queries
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"a folder of .md, .html, .pdf"):
        load(DataConfig(dataset=(str(tmp_path / "empty"),)), as_documents=True)
