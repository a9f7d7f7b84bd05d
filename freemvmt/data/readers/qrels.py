"""Qrels: files of graded judgements, and the collection that they make with documents and queries."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from freemvmt.data.collection import Collection, Qrels
from freemvmt.data.readers.tsv import JUDGEMENTS, table_rows
from freemvmt.data.values import id_of, repeated
from freemvmt.errors import UserError

logger = logging.getLogger(__name__)


LARGEST_GRADE = 1_000_000  # trec_eval's C counts in machine words; no judge grades so finely


_GRADE = re.compile(r"[+-]?[0-9]{1,9}")


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


def judged_collection(
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
