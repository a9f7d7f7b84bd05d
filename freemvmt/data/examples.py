"""Training examples: distinct queries, distinct passages, and which passage answers which query.

Equal texts are one passage with one number, however many rows contain them. Queries that differ only in case or
spacing are the same query. The label of a row's passage (``is_selected`` in MS MARCO) decides whether it is a
positive. Rows without a positive are counted and left out.
"""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from freemvmt.data.judgements import Judgements, index_column, numbers, strings
from freemvmt.data.ragged import IdLists
from freemvmt.data.values import folded
from freemvmt.errors import UserError
from freemvmt.runtime.console import count_of

logger = logging.getLogger(__name__)

_START = 32  # characters of a text that are compared before it is folded


@dataclass(frozen=True, eq=False)
class Examples:
    """Distinct queries and passages, and for each query its positives and its negatives.

    ``positives``, ``negatives`` and ``identical`` hold one list for each query, of indices into ``passages``. A
    passage is never both a positive and a negative of one query. ``identical`` are the passages that are the query
    itself, which may not become its negatives; None: there are none.
    """

    queries: list[str]
    passages: list[str]
    positives: IdLists
    negatives: IdLists
    identical: IdLists | None = None

    @functools.cached_property
    def never_negatives(self) -> IdLists:
        """For each query the passages that may not become its negatives: ``positives`` and ``identical``."""
        if self.identical is None:
            return self.positives
        both = (self.positives, self.identical)
        rows = np.concatenate([np.repeat(np.arange(len(lists)), lists.lengths) for lists in both])
        return IdLists.from_pairs(rows, np.concatenate([lists.ids for lists in both]).astype(np.int64), len(both[0]))

    def without_texts(self) -> "Examples":
        """The same lists of numbers, without queries and passages."""
        return Examples([], [], self.positives, self.negatives, self.identical)

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Every (query number, positive passage number), as two arrays."""
        return np.repeat(np.arange(len(self.positives)), self.positives.lengths), self.positives.ids.astype(np.int64)


def to_examples(judgements: Judgements, where: str, *, as_judged: bool = False) -> Examples:
    """Number queries and passages, drop blank ones, and log how many rows have no positive.

    A passage that is the query itself teaches nothing and is left out. ``as_judged``, for an evaluation, keeps it.
    """
    query_texts: list[str] = judgements.queries.to_pylist()
    distinct_queries = _folded(judgements.queries).dictionary_encode()
    row_query, queries = numbers(distinct_queries.indices, np.int64), distinct_queries.dictionary
    first_row = np.full(len(queries), -1, np.int64)
    first_row[row_query[::-1]] = np.arange(len(row_query))[::-1]
    passages: list[str] = judgements.passages.dictionary.to_pylist()
    passage_of = numbers(judgements.passages.indices, np.int64)

    blank = np.array([not text or text.isspace() for text in passages], np.bool_)
    blank_query = numbers(pc.binary_length(queries), np.int64) == 0
    query_of = row_query[judgements.rows]
    keep = ~(blank[passage_of] | blank_query[query_of]) if len(passages) else np.zeros(0, np.bool_)
    matching_query = (
        np.full(len(passages), -1) if as_judged else _matching_queries(queries, judgements.passages.dictionary)
    )
    self_matches = keep & (matching_query[passage_of] == query_of)
    if count := int(self_matches.sum()):
        logger.info("%s: %s the query itself; left out", where, count_of(count, "passage is", "passages are"))
        keep &= ~self_matches
    query_of, passage_of, labels = query_of[keep], passage_of[keep], judgements.labels[keep]

    # One code for each (query, passage): a positive in any row is a positive, and never a negative of that query.
    size = max(len(passages), 1)
    codes = query_of * size + passage_of
    positives = _distinct(codes[labels])
    negatives = _distinct(codes[~labels])
    negatives = negatives[~numbers(pc.is_in(index_column(negatives), index_column(positives)), np.bool_)]

    has_positive = np.zeros(len(queries), np.bool_)
    has_positive[positives // size] = True
    _log_rows_without_positive(judgements, keep & judgements.labels, where)
    if not has_positive.any():
        raise UserError(f"{where}: no row has a passage that answers its query; nothing to learn from")
    negatives = negatives[has_positive[negatives // size]]

    # Renumber without gaps: only queries with a positive and the passages of their rows remain.
    new_query = np.cumsum(has_positive) - 1
    used = np.zeros(size, np.bool_)
    used[positives % size] = True
    used[negatives % size] = True
    new_passage = np.cumsum(used) - 1
    count = int(has_positive.sum())
    identical, self_matches = None, (matching_query >= 0) & used[: len(passages)] & has_positive[matching_query]
    if self_matches.any():
        rows = new_query[matching_query[self_matches]]
        identical = IdLists.from_pairs(rows, new_passage[: len(passages)][self_matches], count)
    return Examples(
        queries=[query_texts[row].strip() for row in first_row[has_positive]],
        passages=[text for text, is_used in zip(passages, used, strict=False) if is_used],
        positives=IdLists.from_pairs(new_query[positives // size], new_passage[positives % size], count),
        negatives=IdLists.from_pairs(new_query[negatives // size], new_passage[negatives % size], count),
        identical=identical,
    )


def _log_rows_without_positive(judgements: Judgements, is_positive: NDArray[np.bool_], where: str) -> None:
    has_none = np.ones(len(judgements.queries), np.bool_)
    has_none[judgements.rows[is_positive]] = False
    if count := int(has_none.sum()):
        rows_have = count_of(count, "row has", "rows have")
        logger.info("%s: %s no passage that answers the query; left out", where, rows_have)


def _lower_case(texts: pa.LargeStringArray) -> tuple[pa.LargeStringArray, pa.BooleanArray]:
    """(``texts`` in lower case, without white space at the end; whether ``folded`` changes more of a text than that).

    It changes no more of ASCII with single spaces, which is what most texts are.
    """
    lower = pc.ascii_rtrim_whitespace(pc.ascii_lower(texts))
    is_other = pc.or_(pc.invert(pc.string_is_ascii(texts)), pc.match_substring_regex(texts, r"^ |  |[\x00-\x1f]"))
    return lower, is_other


def _folded(queries: pa.LargeStringArray) -> pa.LargeStringArray:
    """``folded`` of each of ``queries``."""
    lower, is_other = _lower_case(queries)
    others = queries.filter(is_other).to_pylist()
    return pc.replace_with_mask(lower, is_other, strings(list(map(folded, others)))) if others else lower


def _matching_queries(queries: pa.LargeStringArray, texts: pa.LargeStringArray) -> NDArray[np.int64]:
    """For each text the number of the query, of folded ``queries``, that it is when it is folded; -1: none."""
    matches = np.full(len(texts), -1)
    # Folding is slow, so it is done only for texts that begin as a query does.
    candidates = np.flatnonzero(_may_begin_as(queries, texts))
    number_of = pc.index_in(_folded(texts.take(index_column(candidates))), queries)
    matches[candidates[numbers(number_of.is_valid(), np.bool_)]] = numbers(number_of.drop_null(), np.int64)
    return matches


def _may_begin_as(queries: pa.LargeStringArray, texts: pa.LargeStringArray) -> NDArray[np.bool_]:
    """Whether each of ``texts``, when it is folded, may begin as one of the folded ``queries`` does."""
    starts = pc.ascii_rtrim_whitespace(pc.utf8_slice_codeunits(queries, 0, _START))
    lower, is_other = _lower_case(pc.utf8_slice_codeunits(texts, 0, _START))
    return numbers(pc.or_(is_other, pc.is_in(lower, starts)), np.bool_)


def _distinct(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Distinct codes in order of first appearance."""
    _, first = np.unique(codes, return_index=True)
    return codes[np.sort(first)]


def no_examples() -> Examples:
    """Examples without a query."""
    none = np.empty(0, np.int64)
    return Examples([], [], IdLists.from_pairs(none, none, 0), IdLists.from_pairs(none, none, 0))


def select(examples: Examples, index: NDArray[np.int64]) -> Examples:
    """The examples of the queries at ``index``, with their positives and negatives."""
    positives, negatives = examples.positives.take(index), examples.negatives.take(index)
    used = np.zeros(len(examples.passages), np.bool_)
    used[positives.ids] = True
    used[negatives.ids] = True
    new_passage = (np.cumsum(used) - 1).astype(np.int32)
    identical = None
    if examples.identical is not None:
        lists = examples.identical.take(index)
        in_use = used[lists.ids]
        rows = np.repeat(np.arange(len(index)), lists.lengths)[in_use]
        identical = IdLists.from_pairs(rows, new_passage[lists.ids[in_use]].astype(np.int64), len(index))
    return Examples(
        queries=[examples.queries[number] for number in index],
        passages=[examples.passages[number] for number in np.flatnonzero(used)],
        positives=IdLists(new_passage[positives.ids], positives.offsets),
        negatives=IdLists(new_passage[negatives.ids], negatives.offsets),
        identical=identical,
    )


def with_queries_alone(examples: Examples, queries: Sequence[str], excluded: Sequence[str]) -> Examples:
    """The examples, and ``queries`` without a passage; those in ``excluded`` or ``examples`` are left out."""
    if not queries:
        return examples
    seen = {folded(query) for query in (*excluded, *examples.queries, "")}
    alone: dict[str, str] = {}
    for query in queries:
        if (key := folded(query)) not in seen:
            alone.setdefault(key, query)
    lists = [examples.positives, examples.negatives, examples.identical]
    longer = [None if each is None else each.with_empty(len(alone)) for each in lists]
    assert longer[0] is not None
    assert longer[1] is not None
    return Examples([*examples.queries, *alone.values()], examples.passages, longer[0], longer[1], longer[2])


def without_queries(examples: Examples, queries: Sequence[str]) -> Examples:
    """The examples whose query is none of ``queries`` (case and spacing do not count)."""
    keep = _matching_queries(_folded(strings(queries)), strings(examples.queries)) < 0
    return examples if keep.all() else select(examples, np.flatnonzero(keep))


def split(examples: Examples, fraction: float, limit: int, seed: int) -> tuple[Examples, Examples]:
    """(training, held-out): a random ``fraction`` of the queries, at most ``limit``, is held out."""
    count = min(limit, round(fraction * len(examples.queries)))
    if count < 1 or count == len(examples.queries):
        queries = count_of(len(examples.queries), "query is", "queries are")
        raise UserError(f"{queries} too few to hold some out; give more rows")
    order = np.random.default_rng(seed).permutation(len(examples.queries))
    return select(examples, np.sort(order[count:])), select(examples, np.sort(order[:count]))
