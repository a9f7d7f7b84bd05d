"""Runs: the scores of each query's documents, in trec_eval's order, and as files for TREC's tools.

A line is ``query Q0 document rank score tag``. The separator is a space, as every tool expects; a run whose ids contain
white space has tabs, which ``read_run`` accepts. Scores have nine digits, enough for any number of 32 bits. trec_eval
compares in 32 bits, so the order and the metrics are preserved.
"""

import itertools
import logging
import math
import re
import struct
from pathlib import Path

from freemvmt.data.collection import Collection
from freemvmt.data.lines import numbered_lines
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of
from freemvmt.search.index.ranking import Ranking
from freemvmt.storage.files import atomic_file

logger = logging.getLogger(__name__)

Run = dict[str, dict[str, float]]  # query id -> document id -> score

_FORBIDDEN = re.compile(r"[\t\n\r\ud800-\udfff]")  # in an id, with either separator
_FORM = "the 6 of a TREC run (query Q0 document rank score tag)"


def in_trec_order(scores: dict[str, float]) -> list[tuple[str, float]]:
    """(document, score) in trec_eval's order: by score, then by document id, both descending."""
    return sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)


def without_self_matches(run: Run, collection: Collection, depth: int | None = None) -> Run:
    """The run without documents that are the query itself, cut to the ``depth`` best of each query."""
    self_matches = collection.self_matches
    if not self_matches:
        return run
    rest = {query: {id: scores[id] for id in scores if id != self_matches.get(query)} for query, scores in run.items()}
    if depth is None:
        return rest
    return {query: dict(itertools.islice(scores.items(), depth)) for query, scores in rest.items()}


def check_run(collection: Collection) -> None:
    """Raise ``UserError`` unless a run of ``collection`` can be written and read back."""
    for what, ids in (("document", collection.document_ids), ("query", collection.query_ids)):
        if (id := next(filter(_FORBIDDEN.search, ids), None)) is not None:
            reason = "a tab or the end of a line, which no TREC run can hold"
            raise UserError(f"the {what} id {id[:200]!r} of {collection.name} holds {reason}; leave out --run")


def write_run(run: Run, path: Path, tag: str) -> None:
    """Write a TREC run file, best first; ``tag`` names the system."""
    ids = itertools.chain(run, itertools.chain.from_iterable(run.values()))
    separator = " " if all(id.split() == [id] for id in ids) else "\t"
    with atomic_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for query, scores in run.items():
            for rank, (document, score) in enumerate(in_trec_order(scores), start=1):
                fields = (query, "Q0", document, str(rank), f"{_single(score):.9g}", tag)
                file.write(separator.join(fields) + "\n")


def read_run(path: Path, collection: Collection) -> Run:
    """Read a TREC run of ``collection``; queries that are not in the collection are ignored.

    Raises ``UserError`` for an unknown document, a document that a query has twice, and a file without any query of the
    collection. An empty file is a valid run.
    """
    document_ids, query_ids = set(collection.document_ids), set(collection.query_ids)
    run: Run = {}
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        query, document, score = _fields(line, where)
        if document not in document_ids:
            raise UserError(f"{where}: {collection.name} has no document {document}; compare runs of one collection")
        scores = run.setdefault(query, {})
        if document in scores:
            first = next(n for n, other in numbered_lines(path) if _fields(other, where)[:2] == (query, document))
            message = f"query {query} has the document {document} twice, first in line {first}"
            raise UserError(f"{where}: {message}; keep one of the two")
        scores[document] = _score(score, where)
    if not run:
        logger.warning("%s is empty: a run that found nothing", path)
    elif not run.keys() & query_ids:
        raise UserError(f"{path} holds no query of {collection.name}; compare runs of one collection")
    return {query: scores for query, scores in run.items() if query in query_ids}  # the others have no judgements


def tag_of(path: Path) -> str:
    """The tag in the first line of a run file; ``run`` if the file is empty."""
    return next((re.split(r"\s", line.rstrip())[-1] for _, line in numbered_lines(path, 1)), "run")


def _fields(line: str, where: str) -> tuple[str, str, str]:
    """(query, document, score); ``UserError`` unless the line has six fields."""
    fields = line.split("\t")
    if len(fields) != 6:
        fields = re.split(r"[ \t]+", line.strip(" \t"))  # as tools in C do; an id may contain other white space
    if len(fields) != 6:
        raise UserError(f"{where}: {count_of(len(fields), 'field')}, not {_FORM}; write the run again")
    return fields[0], fields[2], fields[4]


def _score(text: str, where: str) -> float:
    try:
        value = math.nan if "_" in text else _single(float(text))  # Python accepts 1_000
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: the score {text[:20]!r} is not a finite number; write the run again")
    return value


def _single(score: float) -> float:
    """``score`` rounded to 32 bits; ``OverflowError`` when it is too large."""
    value: float = struct.unpack("f", struct.pack("f", score))[0]
    return value


def to_run(ranking: Ranking, collection: Collection) -> Run:
    """The ranking as a run, with the ids of ``collection``."""
    ids = collection.document_ids
    return {
        query: {ids[number]: score for number, score in zip(numbers, scores, strict=True) if number >= 0}
        for query, numbers, scores in zip(
            collection.query_ids, ranking.documents.tolist(), ranking.scores.tolist(), strict=True
        )
    }
