"""Plain readers of what `fuzz.py` mutates: short, slow, and written apart from the program's own.

Each gives what the program must give for the same bytes, or raises what a plain reader raises.
"""

import json
import math
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from freemvmt.data.values import passage_id


def _lines(path: Path) -> list[str]:
    lines = path.read_bytes().decode("utf-8-sig").split("\n")
    return [line.rstrip("\r") for line in lines if line.strip()]


def _objects(path: Path) -> Iterator[Any]:
    for line in _lines(path):
        try:
            found = json.dumps(json.loads(line), ensure_ascii=False)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        yield json.loads(found.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def rows(path: Path) -> Any:
    found = []
    for row in _objects(path):
        if isinstance(row.get("passages"), dict):
            texts, marks = row["passages"]["passage_text"], row["passages"]["is_selected"]
        else:
            texts, marks = [str(row[name]) for name in ("passage", "negative") if name in row], (1, 0)
        found.append((str(row["query"]), [(text, mark > 0) for text, mark in zip(texts, marks, strict=False)]))
    return found


def pairs(path: Path) -> Any:
    lines = [line.split("\t") for line in _lines(path)]
    return [(query, [(positive, True), *((text, False) for text in rest if text)]) for query, positive, *rest in lines]


def parquet(path: Path) -> Any:
    try:
        found = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error
    return [(row["query"], [(row["passage"], True)]) for row in found]


def corpus(path: Path) -> Any:
    found = []
    for row in _objects(path):
        metadata = {key: value for key, value in row.items() if key not in ("_id", "id", "title", "text", "metadata")}
        found.append((_id_of(row), row["text"], row.get("title") or "", {**(row.get("metadata") or {}), **metadata}))
    return found


def _id_of(row: dict[str, Any]) -> str:
    name = row.get("id") if row.get("_id") is None else row["_id"]
    return passage_id(row["text"]) if name is None else str(name)


def collection(folder: Path) -> Any:
    corpus, queries = _objects(folder / "corpus.jsonl"), _objects(folder / "queries.jsonl")
    texts = {_id_of(row): f"{row.get('title', '')} {row['text']}".strip() for row in corpus}
    asked = {_id_of(row): str(row["text"]) for row in queries}
    judged = {
        query: {document: grade for document, grade in grades.items() if document in texts}
        for query, grades in qrels(folder / "qrels" / "test.tsv").items()
        if query in asked
    }
    judged = {query: grades for query, grades in judged.items() if any(grade > 0 for grade in grades.values())}
    kept = [query for query in asked if query in judged]
    return list(texts), list(texts.values()), kept, [asked[query] for query in kept], judged


def qrels(path: Path) -> Any:
    found: dict[str, dict[str, int]] = {}
    for number, line in enumerate(_lines(path)):
        query, *_, document, grade = line.split("\t") if "\t" in line else line.split()
        try:
            value = int(grade)
        except ValueError:
            if number:
                raise
            continue  # a header
        found.setdefault(query, {})[document] = value
    return found


def run(path: Path) -> Any:
    found: dict[str, dict[str, float]] = {}
    for line in _lines(path):
        query, _, document, _, score, _ = line.split()
        single = struct.unpack("f", struct.pack("f", float(score)))[0]
        if not math.isfinite(single) or document in found.get(query, {}):
            raise ValueError(f"a score of {score}, or {document} twice")
        found.setdefault(query, {})[document] = single
    return {query: scores for query, scores in found.items() if query in ("q0", "q1")}


def sweep(folder: Path) -> Any:
    try:
        with closing(sqlite3.connect(folder / "quick.db")) as file:
            values = file.execute(
                "SELECT number, value, trial_id FROM trials JOIN trial_values USING (trial_id) "
                "WHERE state IN ('COMPLETE', 'PRUNED') AND value_type = 'FINITE' ORDER BY number"
            ).fetchall()
            named = file.execute("SELECT trial_id, param_name, param_value FROM trial_params").fetchall()
    except sqlite3.Error as error:
        raise ValueError(str(error)) from error
    return [
        (number, value, {name: found for id, name, found in named if id == trial}) for number, value, trial in values
    ]
