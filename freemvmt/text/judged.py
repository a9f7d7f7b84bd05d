"""Judged collections on disk: BEIR folders, and the files that MS MARCO itself is published as."""

import glob
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from freemvmt.errors import UserError
from freemvmt.text.corpus import Collection, Qrels, folded
from freemvmt.text.formats import json_lines, text_of, tsv_fields

logger = logging.getLogger(__name__)

LARGEST_GRADE = 1_000_000  # trec_eval's C counts in machine words; no judge grades so finely
# What TREC's deep learning tracks call their files, beside MS MARCO's own.
_TREC = {
    "dl19": ("2019qrels-pass.txt", "msmarco-test2019-queries.tsv"),
    "dl20": ("2020qrels-pass.txt", "msmarco-test2020-queries.tsv"),
}
_ANOTHER_SPLIT = "evaluate takes another with --split, training needs that one"


def beir(folder: Path, part: str) -> Collection:
    """A BEIR folder: ``corpus.jsonl``, ``queries.jsonl``, ``qrels/PART.tsv``; documents are "title text"."""
    document_ids, documents = beir_corpus(folder / "corpus.jsonl")
    queries = {
        text_of(record, "_id", where): text_of(record, "text", where)
        for where, record in json_lines(folder / "queries.jsonl")
    }
    qrels_file = folder / "qrels" / f"{part}.tsv"
    if not qrels_file.exists():
        found = ", ".join(sorted(file.stem for file in (folder / "qrels").glob("*.tsv"))) or "none"
        raise UserError(f"there is no {qrels_file} (splits found: {found}); {_ANOTHER_SPLIT}")
    collection = _judged(folder.name, document_ids, documents, queries, read_qrels(qrels_file), qrels_file)
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
    records = ((str(record.get("_id")), str(record.get("text"))) for _, record in json_lines(corpus))
    own = {id: id for id, text in records if id in titled and folded(text) == asked[id]}
    return replace(collection, own=collection.self_matches | own)


def beir_corpus(path: Path) -> tuple[list[str], list[str]]:
    ids, texts = [], []
    for where, record in json_lines(path):
        ids.append(text_of(record, "_id", where))
        title = text_of(record, "title", where) if record.get("title") else ""
        texts.append(f"{title} {text_of(record, 'text', where)}".strip())
    if not ids:
        raise UserError(f"{path} is empty; give a corpus with a document a line")
    if len(set(ids)) < len(ids):
        raise UserError(f"{path}: {len(ids) - len(set(ids))} documents repeat an _id; give each document its own")
    return ids, texts


def ms_marco_tsv(folder: Path, part: str) -> Collection:
    """MS MARCO's own files: ``collection.tsv``, ``queries.PART*.tsv``, ``qrels.PART*.tsv``; TREC's for dl19, dl20."""
    qrels_file = qrels_file_of(folder, (part,))
    if qrels_file is None:
        found = ", ".join(sorted(file.name for file in folder.glob("qrels.*.tsv"))) or "none"
        raise UserError(f"{folder} has no qrels.{part}.tsv (found: {found}); {_ANOTHER_SPLIT}")
    queries_file = folder / qrels_file.name.replace("qrels.", "queries.", 1)
    if part in _TREC and qrels_file.name == _TREC[part][0]:
        queries_file = folder / _TREC[part][1]
    elif not queries_file.exists():
        queries_file = folder / f"queries.{part}.tsv"
    queries = {fields[0]: fields[1] for _, fields in tsv_fields(queries_file, (2,))}
    documents = {fields[0]: fields[1] for _, fields in tsv_fields(folder / "collection.tsv", (2,))}
    return _judged(folder.name, list(documents), list(documents.values()), queries, read_qrels(qrels_file), qrels_file)


def qrels_file_of(folder: Path, parts: Iterable[str]) -> Path | None:
    for part in parts:
        trec = [folder / _TREC[part][0]] if part in _TREC else []
        for file in (folder / f"qrels.{part}.tsv", *sorted(folder.glob(f"qrels.{glob.escape(part)}.*.tsv")), *trec):
            if file.exists():
                return file
    return None


def read_qrels(path: Path) -> Qrels:
    """Three columns (query, document, grade; a header is passed over) or TREC's four (query, 0, document, grade).

    They are separated by tabs or, in a line that has none, by spaces, as in TREC's own files.
    """
    qrels: Qrels = {}
    for number, fields in tsv_fields(path, (3, 4), or_spaces=True):
        query, document, text = fields[0], fields[-2], fields[-1]
        try:
            grade = int(text)
        except ValueError:
            if number == 1:
                continue  # a header
            grade = LARGEST_GRADE + 1
        if abs(grade) > LARGEST_GRADE:
            expected = f"a whole number, at most {LARGEST_GRADE:,}; mend the line"
            raise UserError(f"{path}, line {number}: the grade {text[:20]!r} is not {expected}")
        qrels.setdefault(query, {})[document] = grade
    if not qrels:
        raise UserError(f"{path} holds no judgement; give a line (query, document, grade) for each")
    return qrels


def _judged(
    name: str, document_ids: list[str], documents: list[str], queries: dict[str, str], qrels: Qrels, where: Path
) -> Collection:
    """Keep the queries with a known relevant document; count what the qrels name and the corpus lacks."""
    known = set(document_ids)
    judgements = sum(map(len, qrels.values()))
    sound = {
        query: {document: grade for document, grade in grades.items() if document in known}
        for query, grades in qrels.items()
        if query in queries
    }
    sound = {query: grades for query, grades in sound.items() if any(grade > 0 for grade in grades.values())}
    lost = judgements - sum(map(len, sound.values()))
    if not sound:
        known_pair = "a known query and a known document with a grade above 0"
        raise UserError(f"{where}: none of its {judgements} judgements names {known_pair}; check the ids in all files")
    if lost:
        reason = "name an unknown query or document, or a query without a known relevant one"
        logger.warning("%s: %d of %d judgements %s; left out", where, lost, judgements, reason)
    query_ids = [query for query in queries if query in sound]
    return Collection(name, document_ids, documents, query_ids, [queries[query] for query in query_ids], sound)
