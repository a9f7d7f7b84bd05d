"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/*.tsv``."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from freemvmt.data.collection import Collection
from freemvmt.data.lines import data_files, json_lines, unpack_hint
from freemvmt.data.readers.qrels import judged_collection, read_qrels
from freemvmt.data.readers.tsv import QUERIES, table_rows
from freemvmt.data.records import duplicate_record_error, read_records
from freemvmt.data.values import content_of, duplicate_error, first_duplicate, folded, id_of, text_of
from freemvmt.errors import UserError
from freemvmt.storage.files import name_of

SPLIT_HINT = "evaluate takes another with --split, training needs that one"


def beir(folder: Path, split: str) -> Collection:
    """A split of a BEIR folder. Documents are "title text"."""
    ids, titles, documents = read_documents(folder / "corpus.jsonl")
    queries = read_queries(folder / "queries.jsonl")
    qrels_file = folder / "qrels" / f"{split}.tsv"
    if not qrels_file.exists():
        available = ", ".join(file.stem for file in data_files(folder / "qrels", (".tsv",))) or "none"
        hint = unpack_hint(folder / "qrels", qrels_file.name) or SPLIT_HINT
        raise UserError(f"there is no {qrels_file} (splits found: {available}); {hint}")
    documents = [text.strip() for text in documents]  # as BEIR's own reader does
    collection = judged_collection(name_of(folder), ids, documents, queries, read_qrels(qrels_file), qrels_file)
    return _with_title_self_matches(replace(collection, titles=titles), folder / "corpus.jsonl")


def _with_title_self_matches(collection: Collection, corpus: Path) -> Collection:
    """The same collection, where a document is also a self-match if its text without the title is, as in ArguAna."""
    query_texts = dict(zip(collection.query_ids, map(folded, collection.queries), strict=True))
    candidates = {
        id
        for id, text in zip(collection.document_ids, collection.documents, strict=True)
        if id in query_texts and folded(text).endswith(f" {query_texts[id]}") and collection.qrels[id].get(id, 0) <= 0
    }
    if not candidates:
        return collection
    texts = ((record.id, folded(record.text)) for record in read_records(corpus) if record.id in candidates)
    return replace(collection, own=collection.self_matches | {id: id for id, text in texts if text == query_texts[id]})


def read_documents(path: Path) -> tuple[list[str], list[str], list[str]]:
    """(ids, titles, contents) of all documents of a file, the same that `index` reads."""
    ids, titles, contents = [], [], []
    for record in read_records(path):
        ids.append(record.id)
        titles.append(record.title.lstrip())
        contents.append(content_of(record.title, record.text))
    if not ids:
        raise UserError(f"{path} is empty; give a corpus with a document a line")
    if (duplicate := first_duplicate(ids)) is not None:
        raise duplicate_record_error(path, duplicate)
    return ids, titles, contents


def read_queries(path: Path) -> dict[str, str]:
    """Query id -> text, from a JSONL or TSV file. Raises ``UserError`` with both places for a duplicate id."""
    queries: dict[str, str] = {}
    for _, id, text in _queries(path):
        if id in queries:
            entries = ((where, other_id) for where, other_id, _ in _queries(path))
            raise duplicate_error(f"the query {id[:200]!r}", id, entries)
        queries[id] = text
    return queries


def _queries(path: Path) -> Iterator[tuple[str, str, str]]:
    """(place, id, text) of each query."""
    if path.suffix == ".tsv":
        for where, (id, text) in table_rows(path, QUERIES):
            yield where, id_of(id, "id", where), text
        return
    for where, record in json_lines(path):
        id_field = "id" if record.get("_id") is None and "id" in record else "_id"
        for field in (id_field, "text"):
            if field not in record:
                names = ", ".join(f'"{name}"' for name in record) or "none"
                raise UserError(f'{where}: no field "{field}" (found {names}); give each query its id and its text')
        yield where, id_of(record[id_field], id_field, where), text_of(record["text"], "text", where)
