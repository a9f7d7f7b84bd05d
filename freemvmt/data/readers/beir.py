"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/*.tsv``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from freemvmt.data.collection import Collection
from freemvmt.data.lines import data_files, json_lines, packed_in
from freemvmt.data.readers.qrels import judged_collection, read_qrels
from freemvmt.data.readers.tsv import QUERIES, table_rows
from freemvmt.data.records import read_records, repeated_record
from freemvmt.data.values import content_of, first_repeat, folded, id_of, repeated, text_of
from freemvmt.errors import UserError

ANOTHER_SPLIT = "evaluate takes another with --split, training needs that one"


def beir(folder: Path, part: str) -> Collection:
    """A BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/PART.tsv``; documents are "title text"."""
    ids, documents = read_documents(folder / "corpus.jsonl")
    queries = read_queries(folder / "queries.jsonl")
    qrels_file = folder / "qrels" / f"{part}.tsv"
    if not qrels_file.exists():
        found = ", ".join(file.stem for file in data_files(folder / "qrels", (".tsv",))) or "none"
        todo = packed_in(folder / "qrels", qrels_file.name) or ANOTHER_SPLIT
        raise UserError(f"there is no {qrels_file} (splits found: {found}); {todo}")
    documents = [text.strip() for text in documents]  # as BEIR's own reader does
    collection = judged_collection(folder.name, ids, documents, queries, read_qrels(qrels_file), qrels_file)
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


def read_queries(path: Path) -> dict[str, str]:
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
