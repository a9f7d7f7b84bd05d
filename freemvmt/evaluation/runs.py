"""Runs: the scores of each query's documents, in trec_eval's order, and as the files that TREC's tools read.

A line is ``query Q0 document rank score tag``. Where an id holds white space its fields are separated by tabs, which
reads back here; all other runs have spaces, as every tool expects. Scores have nine digits, which tell any two numbers
of 32 bits apart: trec_eval compares no finer, so order and metrics survive.
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
from freemvmt.search.index.ranking import Ranking
from freemvmt.storage.files import whole_file

logger = logging.getLogger(__name__)

Run = dict[str, dict[str, float]]  # query id -> document id -> score

_UNHOLDABLE = re.compile(r"[\t\n\r\ud800-\udfff]")  # by either form of a line
_FORM = "the 6 of a TREC run (query Q0 document rank score tag)"


def ranked(scores: dict[str, float]) -> list[tuple[str, float]]:
    """(document, score) in trec_eval's own order: by score, then by document id, both downwards."""
    return sorted(scores.items(), key=lambda item: (item[1], item[0]), reverse=True)


def without_self_matches(run: Run, collection: Collection, depth: int | None = None) -> Run:
    """The run where no query has the document that is the query itself; at most the ``depth`` best of each."""
    own = collection.self_matches
    if not own:
        return run
    left = {query: {id: scores[id] for id in scores if id != own.get(query)} for query, scores in run.items()}
    if depth is None:
        return left
    return {query: dict(itertools.islice(scores.items(), depth)) for query, scores in left.items()}


def check_run(collection: Collection) -> None:
    """Raise ``UserError`` unless a run of ``collection`` can be written and read back."""
    for what, ids in (("document", collection.document_ids), ("query", collection.query_ids)):
        if (id := next(filter(_UNHOLDABLE.search, ids), None)) is not None:
            reason = "a tab or the end of a line, which no TREC run can hold"
            raise UserError(f"the {what} id {id[:200]!r} of {collection.name} holds {reason}; leave out --run")


def write_run(run: Run, path: Path, tag: str) -> None:
    """A TREC run file, best first; ``tag`` names what ranked."""
    ids = itertools.chain(run, itertools.chain.from_iterable(run.values()))
    between = " " if all(id.split() == [id] for id in ids) else "\t"
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        for query, scores in run.items():
            for rank, (document, score) in enumerate(ranked(scores), start=1):
                fields = (query, "Q0", document, str(rank), f"{_single(score):.9g}", tag)
                file.write(between.join(fields) + "\n")


def read_run(path: Path, collection: Collection) -> Run:
    """A TREC run of ``collection``, whose queries that the collection lacks are left out.

    Raises ``UserError`` for a document that it does not have, one that stands twice for a query, and a file of which it
    has no query. An empty file is a run that found nothing.
    """
    known_documents, known_queries = set(collection.document_ids), set(collection.query_ids)
    run: Run = {}
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        query, document, score = _fields(line, where)
        if document not in known_documents:
            raise UserError(f"{where}: {collection.name} has no document {document}; compare runs of one collection")
        scores = run.setdefault(query, {})
        if document in scores:
            first = next(n for n, other in numbered_lines(path) if _fields(other, where)[:2] == (query, document))
            again = f"query {query} has the document {document} twice, first in line {first}"
            raise UserError(f"{where}: {again}; keep one of the two")
        scores[document] = _score(score, where)
    if not run:
        logger.warning("%s is empty: a run that found nothing", path)
    elif not run.keys() & known_queries:
        raise UserError(f"{path} holds no query of {collection.name}; compare runs of one collection")
    return {query: scores for query, scores in run.items() if query in known_queries}  # others were never judged


def tag_of(path: Path) -> str:
    """The tag of the first line of a run; ``run`` where it is empty."""
    return next((re.split(r"\s", line.rstrip())[-1] for _, line in numbered_lines(path, 1)), "run")


def _fields(line: str, where: str) -> tuple[str, str, str]:
    """(query, document, score); ``UserError`` unless the line has the fields of a run."""
    fields = line.split("\t")
    if len(fields) != 6:
        fields = re.split(r"[ \t]+", line.strip(" \t"))  # no more than C's tools: an id may hold other white space
    if len(fields) != 6:
        raise UserError(f"{where}: {len(fields)} fields, not {_FORM}; write the run again")
    return fields[0], fields[2], fields[4]


def _score(text: str, where: str) -> float:
    try:
        value = math.nan if "_" in text else _single(float(text))  # Python takes 1_000 for a number
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: the score {text[:20]!r} is not a finite number; write the run again")
    return value


def _single(score: float) -> float:
    """The number of 32 bits that is nearest; ``OverflowError`` beyond them."""
    value: float = struct.unpack("f", struct.pack("f", score))[0]
    return value


def to_run(ranking: Ranking, collection: Collection) -> Run:
    """A ranking with the ids of ``collection`` for its numbers."""
    ids = collection.document_ids
    return {
        query: {ids[number]: score for number, score in zip(numbers, scores, strict=True) if number >= 0}
        for query, numbers, scores in zip(
            collection.query_ids, ranking.documents.tolist(), ranking.scores.tolist(), strict=True
        )
    }
