"""Judged collections on disk: BEIR folders, and the files that MS MARCO itself is published as."""

import glob
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.text.corpus import Collection, Qrels, folded
from freemvmt.text.lines import data_files, json_lines, packed_in
from freemvmt.text.records import read_records, repeated_record
from freemvmt.text.tsv import JUDGEMENTS, QUERIES, table_rows
from freemvmt.text.values import content_of, first_repeat, id_of, repeated, text_of

logger = logging.getLogger(__name__)

LARGEST_GRADE = 1_000_000  # trec_eval's C counts in machine words; no judge grades so finely
_GRADE = re.compile(r"[+-]?[0-9]{1,9}")
# What TREC's deep learning tracks call their files, beside MS MARCO's own.
_TREC = {
    "dl19": ("2019qrels-pass.txt", "msmarco-test2019-queries.tsv"),
    "dl20": ("2020qrels-pass.txt", "msmarco-test2020-queries.tsv"),
}
_ANOTHER_SPLIT = "evaluate takes another with --split, training needs that one"


def beir(folder: Path, part: str) -> Collection:
    """A BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/PART.tsv``; documents are "title text"."""
    ids, documents = read_documents(folder / "corpus.jsonl")
    queries = _by_id(folder / "queries.jsonl")
    qrels_file = folder / "qrels" / f"{part}.tsv"
    if not qrels_file.exists():
        found = ", ".join(file.stem for file in data_files(folder / "qrels", (".tsv",))) or "none"
        todo = packed_in(folder / "qrels", qrels_file.name) or _ANOTHER_SPLIT
        raise UserError(f"there is no {qrels_file} (splits found: {found}); {todo}")
    documents = [text.strip() for text in documents]  # as BEIR's own reader does
    collection = _judged(folder.name, ids, documents, queries, read_qrels(qrels_file), qrels_file)
    return _titles_aside(collection, folder / "corpus.jsonl")


def _titles_aside(collection: Collection, corpus: Path) -> Collection:
    """The same, where a document under a title is the query itself too if the rest of it is, as in ArguAna."""
    asked = dict(zip(collection.query_ids, map(folded, collection.queries), strict=True))
    titled = {
        id
        for id, text in zip(collection.document_ids, collection.documents, strict=True)
        if id in asked and folded(text).endswith(f" {asked[id]}") and collection.qrels[id].get(id, 0) <= 0
    }
    if not titled:
        return collection
    texts = ((record.id, folded(record.text)) for record in read_records(corpus) if record.id in titled)
    return replace(collection, own=collection.self_matches | {id: id for id, text in texts if text == asked[id]})


def read_documents(path: Path) -> tuple[list[str], list[str]]:
    """(ids, contents) of all documents of a file, which are those that `index` reads."""
    ids, contents = [], []
    for record in read_records(path):
        ids.append(record.id)
        contents.append(content_of(record.title, record.text))
    if not ids:
        raise UserError(f"{path} is empty; give a corpus with a document a line")
    if (twice := first_repeat(ids)) is not None:
        raise repeated_record(path, twice)
    return ids, contents


def _by_id(path: Path) -> dict[str, str]:
    """The queries of a file of JSONL or TSV; ``UserError`` with both places for an id that stands twice."""
    queries: dict[str, str] = {}
    for _, id, text in _queries(path):
        if id in queries:
            places = ((where, other) for where, other, _ in _queries(path))
            raise repeated(f"the query {id[:200]!r}", id, places)
        queries[id] = text
    return queries


def _queries(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place, id, text) of each."""
    if path.suffix == ".tsv":
        for where, (id, text) in table_rows(path, QUERIES):
            yield where, id_of(id, "id", where), text
        return
    for where, record in json_lines(path):
        name = "id" if record.get("_id") is None and "id" in record else "_id"
        for field in (name, "text"):
            if field not in record:
                found = ", ".join(f'"{name}"' for name in record) or "none"
                raise UserError(f'{where}: no field "{field}" (found {found}); give each query its id and its text')
        yield where, id_of(record[name], name, where), text_of(record["text"], "text", where)


def ms_marco_tsv(folder: Path, part: str) -> Collection:
    """MS MARCO's own files: ``collection.tsv``, ``queries.PART*.tsv``, ``qrels.PART*.tsv``; TREC's for dl19, dl20."""
    qrels_file = qrels_file_of(folder, (part,))
    if qrels_file is None:
        found = ", ".join(sorted(file.name for file in folder.glob("qrels.*.tsv"))) or "none"
        todo = packed_in(folder, f"qrels.{part}.") or _ANOTHER_SPLIT
        raise UserError(f"{folder} has no qrels.{part}.tsv (found: {found}); {todo}")
    queries_file = folder / qrels_file.name.replace("qrels.", "queries.", 1)
    if part in _TREC and qrels_file.name == _TREC[part][0]:
        queries_file = folder / _TREC[part][1]
    elif not queries_file.exists():
        queries_file = folder / f"queries.{part}.tsv"
    queries = _by_id(queries_file)
    ids, documents = read_documents(folder / "collection.tsv")
    return _judged(folder.name, ids, documents, queries, read_qrels(qrels_file), qrels_file)


def qrels_file_of(folder: Path, parts: Iterable[str]) -> Path | None:
    for part in parts:
        trec = [folder / _TREC[part][0]] if part in _TREC else []
        for file in (folder / f"qrels.{part}.tsv", *sorted(folder.glob(f"qrels.{glob.escape(part)}.*.tsv")), *trec):
            if file.exists():
                return file
    return None


def read_qrels(path: Path) -> Qrels:
    """Three columns (query, document, grade), in that order or as a header says, or TREC's four (query, 0, document,
    grade).

    They are separated by tabs or, in a line that has none, by spaces, as in TREC's own files. Grades are whole numbers;
    a pair is judged once. Raises ``UserError`` with the line where that is not so.
    """
    qrels: Qrels = {}
    for where, query, document, text in _judgements(path):
        grade = text.strip()
        if not _GRADE.fullmatch(grade) or abs(int(grade)) > LARGEST_GRADE:
            expected = f"a whole number, at most {LARGEST_GRADE:,}; mend the line"
            raise UserError(f"{where}: the grade {text[:20]!r} is not {expected}")
        grades = qrels.setdefault(query, {})
        if document in grades:
            again = ((place, (one, other)) for place, one, other, _ in _judgements(path))
            name = f"the judgement of query {query[:100]!r} and document {document[:100]!r}"
            raise repeated(name, (query, document), again)
        grades[document] = int(grade)
    if not qrels:
        raise UserError(f"{path} holds no judgement; give a line (query, document, grade) for each")
    return qrels


def _judgements(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """(place, query id, document id, grade as it is written) of each."""
    for where, (query, _, document, grade) in table_rows(path, JUDGEMENTS, or_spaces=True):
        yield where, id_of(query, "query_id", where), id_of(document, "corpus_id", where), grade


def _judged(
    name: str, document_ids: list[str], documents: list[str], queries: dict[str, str], qrels: Qrels, where: Path
) -> Collection:
    """Keep the queries with a known relevant document; count what the qrels name and the corpus lacks, and say it."""
    known = set(document_ids)
    sound: Qrels = {}
    lost = {"of an unknown query": 0, "of an unknown document": 0, "of a query without a known relevant document": 0}
    no_query, no_document, no_answer = lost
    for query, grades in qrels.items():
        there = {document: grade for document, grade in grades.items() if document in known}
        if query not in queries:
            lost[no_query] += len(grades)
            continue
        lost[no_document] += len(grades) - len(there)
        if any(grade > 0 for grade in there.values()):
            sound[query] = there
        else:
            lost[no_answer] += len(there)
    judgements = sum(map(len, qrels.values()))
    if not sound:
        known_pair = "a known query and a known document with a grade above 0"
        raise UserError(f"{where}: none of its {judgements} judgements names {known_pair}; check the ids in all files")
    if any(lost.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in lost.items() if count)
        logger.warning("%s: %d of %d judgements left out: %s", where, sum(lost.values()), judgements, reasons)
    query_ids = [query for query in queries if query in sound]
    return Collection(name, document_ids, documents, query_ids, [queries[query] for query in query_ids], sound)
