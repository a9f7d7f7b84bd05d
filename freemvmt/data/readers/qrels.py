"""Read qrels (graded judgements), and make a collection of them with documents and queries."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from freemvmt.data.collection import Collection, Qrels
from freemvmt.data.readers.tsv import JUDGEMENTS, table_rows
from freemvmt.data.values import duplicate_error, id_of
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of

logger = logging.getLogger(__name__)


MAX_GRADE = 1_000_000  # trec_eval stores grades as machine integers


_GRADE = re.compile(r"[+-]?[0-9]{1,9}")


def read_qrels(path: Path) -> Qrels:
    """The judgements of a file with columns (query, document, grade) or, as in TREC, (query, 0, document, grade).

    A header may give another order. Columns are separated by tabs or, in a line without a tab, by spaces. Raises
    ``UserError`` with the line if a grade is not a whole number or a pair is judged twice.
    """
    qrels: Qrels = {}
    for where, query, document, text in _judgements(path):
        grade = text.strip()
        if not _GRADE.fullmatch(grade) or abs(int(grade)) > MAX_GRADE:
            expected = f"a whole number, at most {MAX_GRADE:,}; mend the line"
            raise UserError(f"{where}: the grade {text[:20]!r} is not {expected}")
        grades = qrels.setdefault(query, {})
        if document in grades:
            entries = ((place, (query_id, document_id)) for place, query_id, document_id, _ in _judgements(path))
            name = f"the judgement of query {query[:100]!r} and document {document[:100]!r}"
            raise duplicate_error(name, (query, document), entries)
        grades[document] = int(grade)
    if not qrels:
        raise UserError(f"{path} holds no judgement; give a line (query, document, grade) for each")
    return qrels


def _judgements(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """(place, query id, document id, text of the grade) of each judgement."""
    for where, (query, _, document, grade) in table_rows(path, JUDGEMENTS, or_spaces=True):
        yield where, id_of(query, "query_id", where), id_of(document, "corpus_id", where), grade


def judged_collection(
    name: str, document_ids: list[str], documents: list[str], queries: dict[str, str], qrels: Qrels, where: Path
) -> Collection:
    """A collection of the queries with a relevant document in the corpus. Logs the judgements that are left out."""
    corpus_ids = set(document_ids)
    valid_qrels: Qrels = {}
    dropped = {
        "of an unknown query": 0,
        "of an unknown document": 0,
        "of a query without a known relevant document": 0,
    }
    unknown_query, unknown_document, no_relevant = dropped
    for query, grades in qrels.items():
        corpus_grades = {document: grade for document, grade in grades.items() if document in corpus_ids}
        if query not in queries:
            dropped[unknown_query] += len(grades)
            continue
        dropped[unknown_document] += len(grades) - len(corpus_grades)
        if any(grade > 0 for grade in corpus_grades.values()):
            valid_qrels[query] = corpus_grades
        else:
            dropped[no_relevant] += len(corpus_grades)
    judgements = sum(map(len, qrels.values()))
    if not valid_qrels:
        expected = "a known query and a known document with a grade above 0"
        total = count_of(judgements, "judgement")
        raise UserError(f"{where}: none of {total} names {expected}; check the ids in all files")
    if any(dropped.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        total = count_of(judgements, "judgement")
        logger.warning("%s: %d of %s left out: %s", where, sum(dropped.values()), total, reasons)
    query_ids = [query for query in queries if query in valid_qrels]
    return Collection(name, document_ids, documents, query_ids, [queries[query] for query in query_ids], valid_qrels)
