"""Rows become what training and evaluation eat: ``Examples`` (who answers whom) and a ``Collection`` (with qrels).

The same text is one passage with one number, however many rows hold it; a query is the same query in any case and
spacing. ``is_selected`` (or its like) decides what is positive, and a row without a positive is counted and left out.
"""

import functools
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from freemvmt.errors import UserError
from freemvmt.text.arrays import IdLists
from freemvmt.text.formats import Judgements

logger = logging.getLogger(__name__)

Qrels = dict[str, dict[str, int]]  # query id -> document id -> grade; above 0 is relevant


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


@dataclass(frozen=True, eq=False)
class Collection:
    """What a retriever is measured on: documents, queries, graded judgements.

    ``pools``, where rows named candidates, holds for each query id the document ids of its own row. ``own`` maps a
    query id to the id of the document that is left out of its ranking; None: see ``self_matches``.
    """

    name: str
    document_ids: list[str]
    documents: list[str]
    query_ids: list[str]
    queries: list[str]
    qrels: Qrels
    pools: dict[str, list[str]] = field(default_factory=dict)
    own: dict[str, str] | None = None

    @functools.cached_property
    def self_matches(self) -> dict[str, str]:
        """Query id -> id of the document that is the query itself, which no ranking of that query holds.

        By default a document with the query's id and text, as in ArguAna and Quora, unless it is judged relevant.
        """
        if self.own is not None:
            return self.own
        asked = dict(zip(self.query_ids, self.queries, strict=True))
        return {
            id: id
            for id, text in zip(self.document_ids, self.documents, strict=True)
            if id in asked and folded(text) == folded(asked[id]) and self.qrels[id].get(id, 0) <= 0
        }

    def texts_of_self_matches(self) -> dict[str, str]:
        """For each query (folded) the text of the document that is the query itself, if there is one."""
        if not self.self_matches:
            return {}
        texts = dict(zip(self.document_ids, self.documents, strict=True))
        asked = dict(zip(self.query_ids, self.queries, strict=True))
        return {folded(asked[query]): texts[id] for query, id in self.self_matches.items()}

    def ignoring_identical_ids(self, ignore: bool | None) -> "Collection":
        """The same collection, where each query leaves out the document with its id (True), or none (False), or by
        the rule of ``self_matches`` (None)."""
        if ignore is None:
            return self
        return replace(self, own={id: id for id in {*self.query_ids} & {*self.document_ids}} if ignore else {})

    def fingerprint(self) -> str:
        """A hash of documents, queries and judgements: equal for two results that may be compared."""
        digest = hashlib.blake2b(digest_size=8)
        for texts in (self.document_ids, self.documents, self.query_ids, self.queries):
            for text in texts:
                digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
        for query in self.query_ids:
            digest.update(repr(sorted(self.qrels[query].items())).encode())
        return digest.hexdigest()


def folded(query: str) -> str:
    """Two queries with one folded form are the same query: case and spacing do not count."""
    return " ".join(query.lower().split())


def passage_id(text: str) -> str:
    """A passage's id where the data has none: a hash of its text, the same in every file and order."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


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


def to_collection(
    held_out: Examples, name: str, corpus: Sequence[str] | None = None, itself: Mapping[str, str] | None = None
) -> Collection:
    """A collection from examples: their queries over ``corpus``, by default over the passages that they name.

    Passages are known by ``passage_id``; answers have grade 1. ``itself`` maps a query (folded) to the text of the
    document that is the query itself.
    """
    ids = [passage_id(text) for text in held_out.passages]
    documents = dict(zip(ids, held_out.passages, strict=True))
    documents.update((passage_id(text), text) for text in corpus or ())
    query_ids = [str(number) for number in range(len(held_out.queries))]
    qrels, pools, own = {}, {}, {}
    for number, query in enumerate(query_ids):
        answers = [ids[passage] for passage in held_out.positives[number]]
        qrels[query] = dict.fromkeys(answers, 1)
        pools[query] = answers + [ids[passage] for passage in held_out.negatives[number]]
        if itself and (text := itself.get(folded(held_out.queries[number]))) is not None:
            own[query] = passage_id(text)
    return Collection(name, list(documents), list(documents.values()), query_ids, held_out.queries, qrels, pools, own)


def merge(collections: Sequence[Collection]) -> Collection:
    """One collection of all documents and all queries; query ids are numbered by collection.

    A document keeps its id unless an earlier collection gives that id to another text.
    """
    if len(collections) == 1:
        return collections[0]
    documents: dict[str, str] = {}
    query_ids: list[str] = []
    qrels: Qrels = {}
    pools: dict[str, list[str]] = {}
    own: dict[str, str] = {}
    for number, part in enumerate(collections):
        new_id: dict[str, str] = {}
        for old, text in zip(part.document_ids, part.documents, strict=True):
            new_id[old] = old if documents.get(old, text) == text else f"{number}:{old}"
            documents[new_id[old]] = text
        for query in part.query_ids:
            query_ids.append(f"{number}:{query}")
            qrels[query_ids[-1]] = {new_id[old]: grade for old, grade in part.qrels[query].items()}
            pools[query_ids[-1]] = [new_id[old] for old in part.pools.get(query, [])]
            if query in part.self_matches:
                own[query_ids[-1]] = new_id[part.self_matches[query]]
    return Collection(
        name=" + ".join(part.name for part in collections),
        document_ids=list(documents),
        documents=list(documents.values()),
        query_ids=query_ids,
        queries=[query for part in collections for query in part.queries],
        qrels=qrels,
        pools=pools,
        own=own,
    )
