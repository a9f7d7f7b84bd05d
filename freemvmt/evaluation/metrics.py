"""Metrics, confidence intervals and paired tests for rankings of a collection.

Every result names its protocol. ``full`` ranks the whole corpus, ``pool`` only the passages of a query's own row, which
is far easier. So two results are compared only if protocol, documents, queries and judgements are equal. A document
that is the query itself is removed from that query's ranking, as BEIR does, and the protocol says so. The metrics are
trec_eval's (by ir-measures), and so is the order of equal scores.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG
from numpy.typing import NDArray

from freemvmt.config import Method, Protocol
from freemvmt.data.collection import Collection
from freemvmt.errors import UserError
from freemvmt.evaluation.runs import Run, to_run, without_self_matches
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.retriever import Retriever

# All by trec_eval, so that all have one order of ties. Its RR has no cut-off; ``measure`` applies that of 10.
METRICS = {"ndcg@10": nDCG @ 10, "mrr@10": RR, "recall@100": R @ 100, "recall@1000": R @ 1000}
DEPTH = 1000  # documents of a run for each query
RESAMPLES = 2_000  # of the bootstrap
PERMUTATIONS = 10_000  # of the randomisation test
PERMUTATION_BLOCK = 500  # permutations at a time; divides PERMUTATIONS

Interval = tuple[float, float] | None  # (low, high) of a mean; None for that of a single value, which has no interval


@dataclass(frozen=True, eq=False)
class Result:
    """The metrics of a method on a collection, under a protocol.

    ``per_query`` holds each metric for the queries in ``query_ids``, ``metrics`` the mean over queries, ``intervals``
    the 95 % bootstrap interval of that mean.
    """

    collection: str
    method: str
    protocol: str
    documents: int
    queries: int
    fingerprint: str
    query_ids: list[str] = field(repr=False)
    per_query: dict[str, NDArray[np.float64]] = field(repr=False)
    metrics: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", {name: float(values.mean()) for name, values in self.per_query.items()})

    @functools.cached_property
    def intervals(self) -> dict[str, Interval]:
        """The 95 % bootstrap interval of each metric, over queries; a tenth of a second each."""
        return {name: bootstrap(values) for name, values in self.per_query.items()}

    def as_dict(self) -> dict[str, object]:
        """The result for JSON."""
        return {
            "collection": self.collection,
            "method": self.method,
            "protocol": self.protocol,
            "documents": self.documents,
            "queries": self.queries,
            **{name: round(value, 6) for name, value in self.metrics.items()},
            "interval_95": {name: bounds_of(interval) for name, interval in self.intervals.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """Result A against result B on the same queries: the mean difference of ``metric``, with the p-value of a test."""

    metric: str
    mean_a: float
    mean_b: float
    difference: float
    interval: Interval
    p_value: float
    wins: int
    losses: int
    ties: int


def evaluate(
    retriever: Retriever,
    collection: Collection,
    method: Method = "dense",
    protocol: Protocol = "full",
    weight: float | None = None,
) -> tuple[Result, Run]:
    """Rank the documents of ``collection`` for each of its queries, and measure the run.

    Raises ``UserError`` unless ``retriever`` holds exactly the documents of the collection, under their ids.
    """
    retriever.check_ids(collection.document_ids, collection.name)
    if protocol == "pool":
        run = _rank_pools(retriever, collection, method, weight)
    else:
        run = _run_of(retriever, collection, depth_of(collection, protocol), method, weight)
        run = without_self_matches(run, collection, DEPTH)
    return measure(run, collection, method, protocol), run


def depth_of(collection: Collection, protocol: Protocol) -> int:
    """How many documents are ranked for each query."""
    if protocol == "pool":
        return len(collection.documents)
    return DEPTH + bool(collection.self_matches)  # one more, because a self-match is removed


def _run_of(retriever: Retriever, collection: Collection, k: int, method: Method, weight: float | None) -> Run:
    return dict(zip(collection.query_ids, retriever.scores(collection.queries, k, method, weight), strict=True))


def _rank_pools(retriever: Retriever, collection: Collection, method: Method, weight: float | None) -> Run:
    """Rank all documents, then keep those of each query's own row. A document without a score comes last."""
    _check_pools(collection)
    full = _run_of(retriever, collection, depth_of(collection, "pool"), method, weight)
    ranked = {
        query: {document: scores.get(document, -1.0) for document in collection.pools[query]}
        for query, scores in full.items()
    }
    return without_self_matches(ranked, collection)


def _check_pools(collection: Collection) -> None:
    if not all(collection.pools.get(query) for query in collection.query_ids):
        raise UserError(f"{collection.name} has no pools of passages; measure it with --protocol full")


def measure(run: Run, collection: Collection, method: str, protocol: Protocol = "full", note: str = "") -> Result:
    """All metrics of a run, over all queries of the collection; a query that is not in the run counts as 0.

    A document that is the query itself is ignored. Protocol ``pool`` ignores all documents outside a query's own pool.
    ``note`` is added to the description of the protocol.
    """
    run = without_self_matches(run, collection)
    if protocol == "pool":
        _check_pools(collection)
        pools = {query: set(pool) for query, pool in collection.pools.items()}
        run = {
            query: {document: run[query][document] for document in run[query] if document in pools[query]}
            for query in run
        }
    values: dict[str, dict[str, float]] = {name: {} for name in METRICS}
    names = {measure: name for name, measure in METRICS.items()}
    filled = {query: run.get(query) or {"": 0.0} for query in collection.query_ids}
    for score in ir_measures.iter_calc(list(METRICS.values()), collection.qrels, filled):
        beyond_10 = score.measure == RR and score.value < 1 / 10
        values[names[score.measure]][score.query_id] = 0.0 if beyond_10 else score.value
    documents = len(collection.documents)
    return Result(
        collection=collection.name,
        method=method,
        protocol=protocol_of(collection, protocol) + note,
        documents=documents,
        queries=len(collection.queries),
        fingerprint=collection.fingerprint(),
        query_ids=collection.query_ids,
        per_query={
            name: np.array([by_query[query] for query in collection.query_ids]) for name, by_query in values.items()
        },
    )


def protocol_of(collection: Collection, protocol: Protocol = "full") -> str:
    """The description of a protocol that stands in every result."""
    size, left_out = len(collection.documents), len(collection.self_matches)
    name = f"full corpus, {size} document{'s' * (size != 1)}" if protocol == "full" else "pool of the row's passages"
    return f"{name}; {left_out} self-match{'es' * (left_out > 1)} left out" if left_out else name


def top_10(ranking: Ranking, collection: Collection) -> Run:
    """The 10 best of each query as a run. ``ranking`` needs 11 where the collection has self-matches to remove."""
    depth = 10 + bool(collection.self_matches)
    return without_self_matches(to_run(ranking.cut(depth), collection), collection, 10)


def ndcg_10(ranking: Ranking, collection: Collection) -> float:
    """Mean NDCG@10, for the end of an epoch; ``ranking`` as for ``top_10``."""
    scores = ir_measures.calc_aggregate([nDCG @ 10], collection.qrels, top_10(ranking, collection))
    return float(scores[nDCG @ 10])


def interval_of_ndcg_10(ranking: Ranking, collection: Collection) -> Interval:
    """95 % bootstrap interval of ``ndcg_10``, over queries."""
    run = top_10(ranking, collection)
    scores = {score.query_id: score.value for score in ir_measures.iter_calc([nDCG @ 10], collection.qrels, run)}
    return bootstrap(np.array([scores.get(query, 0.0) for query in collection.query_ids]))


def bootstrap(values: NDArray[np.float64], seed: int = 0) -> Interval:
    """95 % percentile interval of the mean of ``values``; None of a single one."""
    if len(values) == 1:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for number in range(RESAMPLES):
        means[number] = values[generator.integers(0, len(values), len(values))].mean()
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def bounds_of(interval: Interval, digits: int = 6) -> list[float] | None:
    """An interval for JSON."""
    return interval and [round(bound, digits) for bound in interval]


def half_width_of(interval: Interval, digits: int = 4) -> str:
    """`` ± 0.0123`` of an interval, to stand after a mean; as many spaces where there is none."""
    half = f" ± {(interval[1] - interval[0]) / 2:.{digits}f}" if interval else ""
    return half.ljust(len(" ± 0.") + digits)


def compare(a: Result, b: Result, metric: str = "ndcg@10", seed: int = 0) -> Comparison:
    """Paired, two-sided randomisation test (Smucker et al. 2007).

    The p-value is the share of random swaps of A and B whose difference is at least the observed one.
    Raises ``UserError`` unless both were measured by one protocol on one collection.
    """
    if a.protocol != b.protocol:
        raise UserError(f"protocols differ ({a.protocol} against {b.protocol}); measure both in one way")
    if a.fingerprint != b.fingerprint or a.query_ids != b.query_ids:
        raise UserError(f"corpora differ ({a.collection} against {b.collection}); measure both on one collection")
    differences = a.per_query[metric] - b.per_query[metric]
    observed = abs(differences.mean())
    generator = np.random.default_rng(seed)
    extreme = 0
    for _ in range(PERMUTATIONS // PERMUTATION_BLOCK):
        signs = generator.integers(0, 2, (PERMUTATION_BLOCK, len(differences)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ differences) / len(differences) >= observed - 1e-12).sum())
    return Comparison(
        metric=metric,
        mean_a=a.metrics[metric],
        mean_b=b.metrics[metric],
        difference=float(differences.mean()),
        interval=bootstrap(differences, seed),
        p_value=(extreme + 1) / (PERMUTATIONS + 1),
        wins=int((differences > 0).sum()),
        losses=int((differences < 0).sum()),
        ties=int((differences == 0).sum()),
    )


def table(results: Sequence[Result]) -> list[str]:
    """A table of the results, one line each; NDCG@10 has half the width of its interval."""
    lines = [f"{'':<12} {'ndcg@10':>16} {'mrr@10':>8} {'recall@100':>11} {'recall@1000':>12}"]
    for result in results:
        half_width = half_width_of(result.intervals["ndcg@10"])
        scores = result.metrics
        lines.append(
            f"{result.method:<12} {scores['ndcg@10']:7.4f}{half_width} {scores['mrr@10']:8.4f} "
            f"{scores['recall@100']:11.4f} {scores['recall@1000']:12.4f}"
        )
    return lines
