"""Training data without labels: queries alone, and spans of passages that stand in for queries."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from freemvmt.data.lines import json_lines, numbered_lines
from freemvmt.data.values import text_of
from freemvmt.errors import UserError

MIN_SPAN, MAX_SPAN = 3, 16  # words in a span, about as many as in a query
_IDS = frozenset({"id", "_id", "qid", "query_id", "metadata"})


def read_queries_alone(path: Path, limit: int | None, query_field: str) -> list[str] | None:
    """The queries of a text file with one a line, or of a JSONL file whose objects hold nothing but a query.

    None when ``path`` is another file. Raises ``UserError`` for a file without a query, or a line that holds none.
    """
    if path.suffix == ".txt":
        queries = [line.strip() for _, line in numbered_lines(path, limit)]
    elif path.suffix == ".jsonl":
        first = next((record for _, record in json_lines(path, 1)), {})
        if query_field not in first or set(first) - _IDS - {query_field}:
            return None
        queries = list(_query_field(path, limit, query_field))
    else:
        return None
    if not queries:
        raise UserError(f"{path} is empty; give a file with a query a line")
    return queries


def _query_field(path: Path, limit: int | None, query_field: str) -> Iterator[str]:
    for where, record in json_lines(path, limit):
        if query_field not in record:
            raise UserError(f'{where}: no field "{query_field}" as in the lines before; mend or drop that line')
        if text := text_of(record[query_field], query_field, where).strip():
            yield text


def draw_spans(passages: Iterable[str], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(span, passage): ``count`` runs of words of each passage, of random length and place, without repeats.

    A passage that is shorter than a span gives fewer, one of fewer than ``MIN_SPAN`` words none.
    """
    generator = np.random.default_rng([seed, 1])
    for passage in passages:
        words = passage.split()
        lengths = generator.integers(MIN_SPAN, MAX_SPAN + 1, count)
        places = generator.random(count)
        spans = {
            " ".join(words[start : start + length]): None
            for length, place in zip(np.minimum(lengths, len(words) - 1).tolist(), places.tolist(), strict=True)
            if length >= MIN_SPAN and (start := int(place * (len(words) - length + 1))) >= 0
        }
        for span in spans:
            yield span, passage
