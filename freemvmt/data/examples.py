"""What a training learns from: distinct queries and passages, and which passage answers which query.

The same text is one passage with one number, however many rows hold it; a query is the same query in any case and
spacing. ``is_selected`` (or its like) decides what is positive, and a row without a positive is counted and left
out.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.judgements import Judgements
from freemvmt.data.ragged import IdLists
from freemvmt.data.values import folded
from freemvmt.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Examples:
    """Distinct queries, distinct passages, and for each query the passages that answer it and those that were given
    as not answering it (numbers into ``passages``; a passage is never in both).

    ``identical`` are the passages that are the query itself: neither a positive nor ever a negative. None: no such.
    """

    queries: list[str]
    passages: list[str]
    positives: IdLists
    negatives: IdLists
    identical: IdLists | None = None

    @functools.cached_property
    def never_negatives(self) -> IdLists:
        """For each query the passages that may not become its negatives: its positives, and the query itself."""
        if self.identical is None:
            return self.positives
        both = (self.positives, self.identical)
        rows = np.concatenate([np.repeat(np.arange(len(lists)), lists.lengths) for lists in both])
        return IdLists.from_pairs(rows, np.concatenate([lists.ids for lists in both]).astype(np.int64), len(both[0]))

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every (query number, positive passage number), as two arrays."""
        return np.repeat(np.arange(len(self.queries)), self.positives.lengths), self.positives.ids.astype(np.int64)


def to_examples(judgements: Judgements, where: str, *, as_judged: bool = False) -> Examples:
    """Number queries and passages, drop what is blank, and say how many rows had no positive.

    A passage that is the query itself teaches nothing: it is left out, unless ``as_judged``, for a measurement.
    """
    written: list[str] = judgements.queries.to_pylist()
    row_query, queries = _numbered([folded(query) for query in written])
    first_row = np.full(len(queries), -1, np.int64)
    first_row[row_query[::-1]] = np.arange(len(row_query))[::-1]
    passages: list[str] = judgements.passages.dictionary.to_pylist()
    passage_of = judgements.passages.indices.to_numpy(zero_copy_only=False).astype(np.int64)

    blank = np.array([not text.strip() for text in passages], np.bool_)
    blank_query = np.array([not text for text in queries], np.bool_)
    query_of = row_query[judgements.rows]
    kept = ~(blank[passage_of] | blank_query[query_of]) if len(passages) else np.zeros(0, np.bool_)
    twin_of = np.full(len(passages), -1) if as_judged else _twins(queries, passages)
    twins = kept & (twin_of[passage_of] == query_of)
    if twins.any():
        logger.info("%s: %d passages are the query itself; left out", where, twins.sum())
        kept &= ~twins
    query_of, passage_of, labels = query_of[kept], passage_of[kept], judgements.labels[kept]

    # One code a (query, passage): an answer in any row is an answer, and never a negative of that query.
    size = max(len(passages), 1)
    codes = query_of * size + passage_of
    answers = _distinct(codes[labels])
    others = _distinct(codes[~labels])
    others = others[~np.isin(others, answers)]

    answered = np.zeros(len(queries), np.bool_)
    answered[answers // size] = True
    rows_without = len(judgements.queries) - len(np.unique(judgements.rows[kept & judgements.labels]))
    if rows_without:
        logger.info("%s: %d rows have no passage that answers the query; left out", where, rows_without)
    if not answered.any():
        raise UserError(f"{where}: no row has a passage that answers its query; nothing to learn from")
    others = others[answered[others // size]]

    # Close the gaps: only answered queries and the passages of their rows keep a number.
    new_query = np.cumsum(answered) - 1
    used = np.zeros(size, np.bool_)
    used[answers % size] = True
    used[others % size] = True
    new_passage = np.cumsum(used) - 1
    count = int(answered.sum())
    identical, twins = None, (twin_of >= 0) & used[: len(passages)] & answered[twin_of]
    if twins.any():
        rows = new_query[twin_of[twins]]
        identical = IdLists.from_pairs(rows, new_passage[: len(passages)][twins], count)
    return Examples(
        queries=[written[row].strip() for row in first_row[answered]],
        passages=[text for text, keep in zip(passages, used, strict=False) if keep],
        positives=IdLists.from_pairs(new_query[answers // size], new_passage[answers % size], count),
        negatives=IdLists.from_pairs(new_query[others // size], new_passage[others % size], count),
        identical=identical,
    )


def _twins(queries: list[str], passages: list[str]) -> NDArray[np.int64]:
    """For each passage the number of the query (folded) that it is, or -1."""
    numbers = {query: number for number, query in enumerate(queries)}
    starts = {tuple(query.split(None, 2)[:2]) for query in queries}  # which passages are worth folding
    return np.array(
        [
            numbers.get(folded(text), -1) if tuple(text.lower().split(None, 2)[:2]) in starts else -1
            for text in passages
        ],
        np.int64,
    )


def _numbered(texts: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """(number of each text, distinct texts), numbered in order of first appearance."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64), list(numbers)


def _distinct(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct codes in order of first appearance."""
    _, first = np.unique(codes, return_index=True)
    return codes[np.sort(first)]


def nothing() -> Examples:
    """No example."""
    none = np.empty(0, np.int64)
    return Examples([], [], IdLists.from_pairs(none, none, 0), IdLists.from_pairs(none, none, 0))


def select(examples: Examples, index: NDArray[np.int64]) -> Examples:
    """The examples of the queries at ``index``, with the passages that they name."""
    positives, negatives = examples.positives.take(index), examples.negatives.take(index)
    used = np.unique(np.concatenate([positives.ids, negatives.ids]))
    identical = None
    if examples.identical is not None:
        lists = examples.identical.take(index)
        here = np.isin(lists.ids, used)
        rows = np.repeat(np.arange(len(index)), lists.lengths)[here]
        identical = IdLists.from_pairs(rows, np.searchsorted(used, lists.ids[here]), len(index))
    return Examples(
        queries=[examples.queries[number] for number in index],
        passages=[examples.passages[number] for number in used],
        positives=IdLists(np.searchsorted(used, positives.ids).astype(np.int32), positives.offsets),
        negatives=IdLists(np.searchsorted(used, negatives.ids).astype(np.int32), negatives.offsets),
        identical=identical,
    )


def without(examples: Examples, queries: Sequence[str]) -> Examples:
    """The examples whose query is none of ``queries`` (case and spacing do not count)."""
    held = {folded(query) for query in queries}
    kept = np.array([folded(query) not in held for query in examples.queries], np.bool_)
    return examples if kept.all() else select(examples, np.flatnonzero(kept))


def split(examples: Examples, fraction: float, most: int, seed: int) -> tuple[Examples, Examples]:
    """(training, held-out): a seeded ``fraction`` of the queries, ``most`` at the most, is held out."""
    count = min(most, round(fraction * len(examples.queries)))
    if count < 1 or count == len(examples.queries):
        raise UserError(f"{len(examples.queries)} queries are too few to hold some out; give more rows")
    order = np.random.default_rng(seed).permutation(len(examples.queries))
    return select(examples, np.sort(order[count:])), select(examples, np.sort(order[:count]))
