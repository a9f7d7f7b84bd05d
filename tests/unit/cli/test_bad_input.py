"""Wrong flags and wrong data: exit code 2 and one line that says what is wrong, where, and what to do instead."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from freemvmt.config import TrainConfig, flag

from beir_folder import write_beir
from refusals import refusal
from rows import make_rows, write_rows


def train(base: str, dataset: object, output: object, *more: object) -> list[object]:
    return ["train", "--no-wandb", "--epochs", 1, "--base", base, "--output", output, "--dataset", dataset, *more]


GOOD = b'{"query": "a", "passage": "x"}\n'
MS_MARCO = b'{"query": "a", "passages": {"passage_text": %s, "is_selected": %s}}\n'
FILES: dict[str, tuple[str, bytes, list[str]]] = {
    "no lines": ("pairs.jsonl", b"", ["pairs.jsonl: no rows"]),
    "blank lines": ("pairs.jsonl", b"\n \n", ["pairs.jsonl: no rows"]),
    "no pairs": ("pairs.tsv", b"", ["pairs.tsv: no rows"]),
    "no bytes": ("pairs.parquet", b"", ["pairs.parquet is not a sound Parquet file", "0 bytes"]),
    "no parquet": ("pairs.parquet", b"a,b\n" * 99, ["pairs.parquet is not a sound Parquet file"]),
    "wrong field": (
        "p.jsonl",
        b'{"question": "a", "text": "x"}',
        ['no field "query"', '"text"', "--query-field question"],
    ),
    "broken": ("pairs.jsonl", GOOD * 2 + b'{"query": "a",\n', ["pairs.jsonl, line 3: not JSON"]),
    "two objects": ("pairs.jsonl", GOOD + b"{} {}\n", ["line 2: not JSON (Extra data)"]),
    "a list": ("pairs.jsonl", GOOD + b'["query"]\n', ["line 2: a JSON list, not an object"]),
    "a word": ("pairs.jsonl", b'"query"\n', ["line 1: a JSON str, not an object"]),
    "nested lists": ("pairs.jsonl", GOOD + b"[" * 100_000, ["line 2: not JSON (nested too deeply)"]),
    "nested objects": ("pairs.jsonl", b'{"a":' * 100_000, ["line 1: not JSON (nested too deeply)"]),
    "vast number": ("pairs.jsonl", b'{"query": ' + b"9" * 5000 + b"}", ["line 1: not JSON (a number too long)"]),
    "null query": ("pairs.jsonl", b'{"query": null, "passage": "x"}', ['line 1: "query" holds null, not text']),
    "passage list": ("pairs.jsonl", b'{"query": "a", "passage": ["x"]}', ['line 1: "passage" holds a list, not text']),
    "null passages": ("pairs.jsonl", b'{"query": "a", "passages": null}', ['line 1: no field "passage"']),
    "uneven": ("rows.jsonl", MS_MARCO % (b'["x", "y"]', b"[1]"), ['line 1: "passages" needs equally long lists']),
    "marks": ("rows.jsonl", MS_MARCO % (b'["x"]', b'["yes"]'), ['line 1: "is_selected" holds text, not 0 or 1']),
    "null text": ("rows.jsonl", MS_MARCO % (b"[null]", b"[1]"), ['line 1: "passage_text" holds null, not text']),
    "no answers": ("rows.jsonl", MS_MARCO % (b'["x"]', b"[0]") * 9, ["no row has a passage that answers its query"]),
    "latin lines": ("pairs.jsonl", GOOD + b'{"query": "caf\xe9"}', ["pairs.jsonl, line 2: byte 15 is not UTF-8"]),
    "latin pairs": ("pairs.tsv", b"a\tx\ncaf\xe9\ty\n", ["pairs.tsv, line 2: byte 4 is not UTF-8"]),
    "UTF-16": ("pairs.tsv", "a\tx\n".encode("utf-16"), ["pairs.tsv, line 1: byte 1 is not UTF-8"]),
    "ragged": ("pairs.tsv", b"a\tx\nb\ty\tz\n", ["line 2: 3 tab-separated fields, not the 2 of the first line"]),
    "one column": ("pairs.tsv", b"a x\n", ["line 1: 1 tab-separated field, not 2 or 3 (query, passage, negative)"]),
    "four columns": ("pairs.tsv", b"a\tx\ty\tz\n", ["line 1: 4 tab-separated fields"]),
    "ending": (
        "pairs.csv",
        b"query,passage\n",
        ["pairs.csv: the ending '.csv' is not known", ".parquet, .jsonl or .tsv"],
    ),
    "no ending": ("pairs", b"a\tx\n", ["pairs: the ending '' is not known"]),
    "one query": ("pairs.jsonl", GOOD, ["1 query is too few to hold some out"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_refused(case: str, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, parts = FILES[case]
    (tmp_path / name).write_bytes(content)
    said = refusal(capsys, tmp_path, *train(tiny_base, tmp_path / name, tmp_path / "model"))
    assert [part for part in parts if part not in said] == []


def rows(marks: list[Any], texts: list[Any], query: list[Any] | None = None) -> dict[str, Any]:
    passages = [{"is_selected": mark, "passage_text": text} for mark, text in zip(marks, texts, strict=True)]
    return {"query": query or ["a", "b"], "passages": passages}


TABLES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no rows": ({"query": pa.array([], pa.string()), "passage": pa.array([], pa.string())}, ["no rows"]),
    "no columns": ({}, ['no field "query" (found none)']),
    "wrong query": ({"question": ["a"], "text": ["x"]}, ['found "question", "text"', "--query-field question"]),
    "wrong passage": ({"query": ["a"], "id": [1], "text": ["x"]}, ['no field "passage"', "--passage-field text"]),
    "numbers": ({"query": [1], "passage": ["x"]}, ['column "query" holds int64, not text']),
    "numbers below": ({"query": ["a"], "passage": ["x"], "negative": [1]}, ['column "negative" holds int64']),
    "null": ({"query": ["a", None], "passage": ["x", "y"]}, ['row 2: "query" is null']),
    "null in rows": (rows([[1], [1]], [["x"], ["y"]], ["a", None]), ['row 2: "query" is null']),
    "uneven": (rows([[1], [1, 0]], [["x"], ["y"]]), ["row 2: 1 passage, 2 is_selected marks"]),
    "no marks": (rows([None, [1]], [["x"], ["y"]]), ["row 1: 1 passage, 0 is_selected marks"]),
    "null passage": (rows([[1], [1]], [["x"], [None]]), ['row 2: "passage_text" is null']),
    "one mark": (rows([1, 0], [["x"], ["y"]]), ['"is_selected" holds int64, not a list a row']),
    "one passage": (rows([[1], [1]], ["x", "y"]), ['"passage_text" holds string, not a list a row']),
    "words as marks": (rows([["yes"], ["no"]], [["x"], ["y"]]), ['"is_selected" holds string, not numbers']),
    "objects as texts": (
        rows([[1], [1]], [[{"x": 1}], [{"x": 2}]]),
        ['"passage_text" holds struct<x: int64>, not text'],
    ),
    "objects as queries": (
        rows([[1], [1]], [["x"], ["y"]], [{"x": 1}, {"x": 2}]),
        ['column "query" holds struct<x: int64>, not text'],
    ),
    "text as passages": (
        {"query": ["a"], "passages": ["x"]},
        ['"passages" holds string, not MS MARCO\'s passages; write [{"passage_text"'],
    ),
    "no selection": (
        {"query": ["a"], "passages": [{"passage_text": ["x"]}]},
        ["has no is_selected (found passage_text)"],
    ),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table_is_refused(case: str, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns, parts = TABLES[case]
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), path)
    for rows_to_read in ([], ["--max-samples", 2]):
        said = refusal(capsys, tmp_path, *train(tiny_base, path, tmp_path / "model", *rows_to_read))
        assert str(path) in said
        assert [part for part in parts if part not in said] == []


def test_a_parquet_file_that_is_cut_off_is_refused(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(make_rows(20)), path)
    path.write_bytes(path.read_bytes()[:-100])
    said = refusal(capsys, tmp_path, *train(tiny_base, path, tmp_path / "model"))
    assert f"{path} is not a sound Parquet file" in said
    assert "fetch or write it again" in said


def in_folder(content: str) -> Callable[[Path], Path]:
    """A BEIR folder whose train.tsv holds ``content``."""

    def make(folder: Path) -> Path:
        (write_beir(folder / "beir") / "qrels" / "train.tsv").write_bytes(content.encode("latin-1"))
        return folder / "beir"

    return make


def emptied(name: str) -> Callable[[Path], Path]:
    """A BEIR folder whose file ``name`` is empty."""

    def make(folder: Path) -> Path:
        (write_beir(folder / "beir", train=["q0 d0 1"]) / name).write_text("")
        return folder / "beir"

    return make


def empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


PLACES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "nothing there": (lambda folder: folder / "no.jsonl", ["no data set or path", "no.jsonl", "pydocs"]),
    "unknown name": (lambda folder: "msmarcoo", ["no data set or path 'msmarcoo'", "auto, msmarco, pydocs"]),
    "endless name": (lambda folder: "x" * 9999, ["no data set or path 'xxx", "too long", "pydocs"]),
    "MS MARCO offline": (lambda folder: "msmarco", ["cannot be reached", "--dataset pydocs", "path"]),
    "empty folder": (empty, ["empty holds no .parquet, .jsonl or .tsv"]),
    "unknown documents": (in_folder("q0\tx\t1\nq1\ty\t1\n"), ["train.tsv: none of 2 judgements names a known"]),
    "grade in words": (in_folder("q0\td0\t1\nq1\td1\tgood\n"), ["train.tsv, line 2: the grade 'good'"]),
    "latin judgements": (in_folder("q0\td0\t1\ncaf\xe9\td1\t1\n"), ["train.tsv, line 2: byte 4 is not UTF-8"]),
    "ragged judgements": (in_folder("q0\td0\t1\nq1\td1\n"), ["train.tsv, line 2: 2 tab-separated fields"]),
    "no training split": (
        lambda folder: write_beir(folder / "b", test=["q0 d0 1"]),
        ["no title, no heading and no second sentence to learn from"],
    ),
    "empty corpus": (emptied("corpus.jsonl"), ["corpus.jsonl is empty"]),
    "no judgement": (emptied("qrels/train.tsv"), ["train.tsv holds no judgement"]),
}


@pytest.mark.parametrize("case", PLACES)
def test_a_bad_place_is_refused(case: str, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, parts = PLACES[case]
    said = refusal(capsys, tmp_path, *train(tiny_base, make(tmp_path), tmp_path / "model"))
    assert [part for part in parts if part not in said] == []
    assert len(said) < 500


FIELDS = {field.name: typing.get_type_hints(TrainConfig)[field.name] for field in dataclasses.fields(TrainConfig)}
SIZES = [name for name, kind in FIELDS.items() if kind in (int, int | None)]
RATES = [name for name, kind in FIELDS.items() if kind is float]


@pytest.mark.parametrize(
    "value", ["0", "-1", "-99999999999999999999", "99999999999999999999", "1.5", "many", "nan", ""]
)
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_none_is_refused(
    name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name in ("seed", "spans") and value == "0":  # both may be 0
        value = "-0.0"
    said = refusal(capsys, tmp_path, *train("no base", "no data", tmp_path / "model", flag(name), value))
    assert flag(name) in said


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "-inf", "much"])
@pytest.mark.parametrize("name", RATES)
def test_a_rate_that_is_none_is_refused(
    name: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refusal(capsys, tmp_path, *train("no base", "no data", tmp_path / "model", flag(name), value))
    assert flag(name) in said


FLAGS: dict[str, tuple[list[object], list[str]]] = {
    "unknown flag": (["train", "--epoch", 3], ["--epoch", "two-towers train --help"]),
    "unknown choice": (["train", "--loss", "tripelt"], ["tripelt", "--loss", "'triplet', 'infonce'"]),
    "unknown tower": (["train", "--tower", "eiffel"], ["eiffel", "--tower", "average"]),
    "no value": (["train", "--output"], ["--output", "two-towers train --help"]),
    "nothing more wanted": (["train", "--dim", 8, "pairs.jsonl"], ["pairs.jsonl", "two-towers train --help"]),
    "unknown command": (["trian"], ["no command 'trian'", "quickstart, train, evaluate"]),
    "flag as command": (["--dataset", "pydocs"], ["no command '--dataset'"]),
    "nothing to evaluate": (["evaluate"], ["MODEL", "COLLECTION", "two-towers evaluate --help"]),
    "nothing to evaluate on": (["evaluate", "untrained"], ["COLLECTION", "two-towers evaluate --help"]),
    "nothing to compare with": (["compare", "a"], ["MODEL_B", "two-towers compare --help"]),
    "unknown metric": (["compare", "a", "b", "c", "--metric", "map"], ["map", "--metric", "ndcg@10"]),
    "all held out": (["train", "--validation-fraction", 1], ["--validation-fraction is 1"]),
    "none held out": (["train", "--validation-fraction", 0], ["--validation-fraction is 0"]),
    "no rate": (["train", "--learning-rate", 0], ["--learning-rate is 0", "above 0"]),
    "no temperature": (["train", "--temperature", "0.0"], ["--temperature is 0", "above 0"]),
    "batch of one": (["train", "--batch-size", 1], ["--batch-size is 1", "2 or more"]),
    "no base": (["train", "--base", "no/base"], ["no/base", "--base FOLDER"]),
    "no name for a base": (["train", "--base", "no base"], ["'no base' is no folder and no Hub name"]),
    "large batch": (["train", "--batch-size", 1000], ["--batch-size is 1000", "36 training pairs", "36 or less"]),
    "wide": (["train", "--dim", 49], ["--dim is 49", "48 wide"]),
    "no device": (["train", "--device", "abacus"], ["--device abacus", "auto or cpu"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_a_bad_flag_is_refused(case: str, tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, parts = FLAGS[case]
    if arguments[0] == "train":
        given = train(tiny_base, write_rows(tmp_path / "rows.jsonl", 40), tmp_path / "model")
        arguments = [*given, *arguments[1:]]
    said = refusal(capsys, tmp_path, *arguments)
    assert [part for part in parts if part not in said] == []


def test_a_data_set_without_a_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--dataset names nothing" in refusal(capsys, tmp_path, "train", "--dataset")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so asking for one is no error")
def test_a_gpu_that_is_not_there_is_refused(tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 40)
    said = refusal(capsys, tmp_path, *train(tiny_base, data, tmp_path / "model", "--device", "cuda"))
    assert "--device cuda cannot be used here" in said


def test_an_error_is_one_line_whatever_the_path_holds(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "two\nlines [bold]é\udce9.jsonl"
    path.write_text(json.dumps(["no object"]))
    assert "[bold]" in refusal(capsys, tmp_path, *train(tiny_base, path, tmp_path / "model"))


@pytest.mark.parametrize(
    "environment",
    [{}, {"FORCE_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "20"}],
    ids=["plain", "colours", "ASCII", "narrow"],
)
def test_an_error_says_the_same_on_every_terminal(environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from freemvmt.cli import main; sys.exit(main())",
        "train",
        "--epochs",
        "x",
    ]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stderr)
    assert re.fullmatch(r"error: Error parsing --epochs: invalid literal .* 'x'; see two-towers train --help\n", said)


def test_an_error_shows_a_path_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "'no :key: [red]data\\" in refusal(
        capsys, tmp_path, "train", "--no-wandb", "--dataset", "no :key: [red]data\\"
    )
