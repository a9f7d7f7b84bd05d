import dataclasses
import math

import numpy as np
import pytest
import pytrec_eval

from freemvmt.config import ModelConfig
from freemvmt.data.collection import Collection
from freemvmt.errors import UserError
from freemvmt.evaluation.metrics import (
    PERMUTATIONS,
    Comparison,
    Result,
    bootstrap,
    compare,
    evaluate,
    interval_of_ndcg_10,
    measure,
    ndcg_10,
    table,
)
from freemvmt.evaluation.runs import to_run
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.retriever import Retriever


def collection(documents: int = 30, queries: int = 12, seed: int = 0) -> Collection:
    draw = np.random.default_rng(seed)
    ids = [f"d{number}" for number in range(documents)]
    qrels = {
        f"q{number}": {ids[document]: int(draw.integers(0, 4)) for document in draw.choice(documents, 6, replace=False)}
        for number in range(queries)
    }
    for grades in qrels.values():
        grades[next(iter(grades))] = 3
    texts = [f"document number {number}" for number in range(documents)]
    return Collection("made", ids, texts, list(qrels), [f"number {number}" for number in range(queries)], qrels)


def written_out(run: dict[str, float], grades: dict[str, int]) -> dict[str, float]:
    """The metrics by their definitions; equal scores stand in trec_eval's order, by id downwards."""
    ranked = [document for _, document in sorted(((s, d) for d, s in run.items()), reverse=True)]
    gains = [grades.get(document, 0) / math.log2(rank + 2) for rank, document in enumerate(ranked[:10])]
    ideal = [grade / math.log2(rank + 2) for rank, grade in enumerate(sorted(grades.values(), reverse=True)[:10])]
    relevant = {document for document, grade in grades.items() if grade > 0}
    first = next((rank for rank, document in enumerate(ranked[:10], start=1) if document in relevant), 0)
    return {
        "ndcg@10": sum(gains) / sum(ideal),
        "mrr@10": 1 / first if first else 0.0,
        "recall@100": len(relevant & set(ranked[:100])) / len(relevant),
        "recall@1000": len(relevant & set(ranked[:1000])) / len(relevant),
    }


@pytest.mark.parametrize("seed", range(20))
def test_metrics_equal_their_definitions_with_ties_and_missing_queries(seed: int) -> None:
    made = collection(seed=seed, documents=150)
    draw = np.random.default_rng(seed)
    run = {
        query: {
            made.document_ids[document]: float(draw.integers(0, 20)) / 4
            for document in draw.choice(150, int(draw.integers(1, 140)), replace=False)
        }
        for query in made.query_ids[:-2]
    }
    result = measure(run, made, "random")
    for number, query in enumerate(made.query_ids):
        expected = written_out(run[query], made.qrels[query]) if query in run else dict.fromkeys(result.metrics, 0.0)
        assert {name: values[number] for name, values in result.per_query.items()} == pytest.approx(expected, abs=1e-4)
    assert result.metrics["ndcg@10"] == pytest.approx(result.per_query["ndcg@10"].mean())


def test_a_thousand_random_runs_measure_as_trec_eval_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ties, negative grades, unjudged documents, and queries that a run lacks."""
    monkeypatch.setattr("freemvmt.evaluation.metrics.bootstrap", lambda values: (0.0, 0.0))  # a minute of intervals
    names = {"ndcg@10": "ndcg_cut_10", "recall@100": "recall_100", "recall@1000": "recall_1000"}
    draw = np.random.default_rng(0)
    for seed in range(1000):
        ids = [f"{draw.integers(0, 10**6)}-{number}" for number in range(40)]
        texts = [f"text {number}" for number in range(40)]
        qrels = {
            f"q{number}": {id: int(draw.integers(-1, 4)) for id in draw.choice(ids, int(draw.integers(1, 12)), False)}
            for number in range(4)
        }
        for grades in qrels.values():
            grades[next(iter(grades))] = 1
        made = Collection("made", ids, texts, list(qrels), ["a query"] * 4, qrels)
        run = {
            query: {id: float(draw.integers(-3, 4)) / 2 for id in draw.choice(ids, int(draw.integers(1, 40)), False)}
            for query in list(qrels)[: int(draw.integers(1, 5))]
        }
        found = measure(run, made, "random")
        judge = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100,1000", "recip_rank"})
        wanted = judge.evaluate(run)
        for number, query in enumerate(made.query_ids):
            right = wanted.get(query, {})
            for ours, theirs in names.items():
                assert found.per_query[ours][number] == pytest.approx(right.get(theirs, 0.0), abs=1e-9), seed
            first = right.get("recip_rank", 0.0)
            assert found.per_query["mrr@10"][number] == pytest.approx(first if first >= 0.1 else 0.0, abs=1e-9), seed


def test_the_end_of_an_epoch_measures_the_same_ndcg() -> None:
    made = collection()
    draw = np.random.default_rng(1)
    documents = np.stack([draw.permutation(30) for _ in made.query_ids])
    ranking = Ranking(documents, np.sort(draw.random((12, 30)).astype(np.float32))[:, ::-1])
    whole = measure(to_run(ranking, made), made, "x")
    assert ndcg_10(ranking, made) == pytest.approx(whole.metrics["ndcg@10"])
    assert interval_of_ndcg_10(ranking, made) == pytest.approx(whole.intervals["ndcg@10"])


def test_a_query_that_nothing_was_judged_for_counts_as_0() -> None:
    made = collection(queries=2)
    made.qrels["q1"] = {}
    found = measure({query: dict.fromkeys(made.document_ids, 1.0) for query in made.query_ids}, made, "x")
    assert [values[1] for values in found.per_query.values()] == [0.0] * 4
    assert found.metrics["recall@1000"] == 0.5
    assert (found.query_ids, found.fingerprint) == (made.query_ids, made.fingerprint())


def test_a_padded_ranking_leaves_its_gaps_out_of_the_run() -> None:
    made = collection(queries=1)
    ranking = Ranking(np.array([[4, 0, -1]]), np.array([[0.5, 0.25, 0.0]], np.float32))
    assert to_run(ranking, made) == {"q0": {"d4": 0.5, "d0": 0.25}}


def test_bootstrap_holds_the_mean_and_narrows_with_more_queries() -> None:
    draw = np.random.default_rng(0)
    few, many = draw.random(50), draw.random(5000)
    for values in (few, many):
        low, high = bootstrap(values)
        assert low < values.mean() < high
        assert (low, high) == bootstrap(values) == bootstrap(values, seed=0)
        assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(len(values)), rel=0.15)


def result_of(values: np.ndarray, **changes: object) -> Result:
    ids = [str(number) for number in range(len(values))]
    plain = Result("made", "x", "full corpus, 9 documents", 9, len(values), "abc", ids, {"ndcg@10": values})
    return dataclasses.replace(plain, **changes)


def test_a_clear_difference_is_significant_and_none_is_not() -> None:
    draw = np.random.default_rng(0)
    base = draw.random(200)
    better = compare(result_of(base + 0.05 + draw.normal(0, 0.05, 200)), result_of(base))
    assert better.difference == pytest.approx(0.05, abs=0.02)
    assert better.p_value < 0.001
    same = compare(result_of(base + draw.normal(0, 0.05, 200)), result_of(base))
    assert same.p_value > 0.05
    equal = compare(result_of(base), result_of(base))
    assert (equal.p_value, equal.ties) == (1.0, 200)


def test_the_p_value_is_that_of_all_permutations_where_they_can_be_counted() -> None:
    differences = np.array([0.3, 0.1, -0.05, 0.2, 0.15, 0.02, 0.3, -0.1])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
    found = compare(result_of(differences + 1), result_of(np.ones(8)))
    assert found.p_value == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize(
    "changes",
    [{"protocol": "pool of the row's passages"}, {"fingerprint": "other"}, {"query_ids": ["x", "y"]}],
    ids=str,
)
def test_unlike_results_refuse_to_be_compared(changes: dict[str, object]) -> None:
    values = np.array([0.1, 0.9])
    with pytest.raises(UserError, match="differ"):
        compare(result_of(values), result_of(values, **changes))


def test_a_pool_is_easier_than_the_corpus_and_says_what_it_is() -> None:
    made = collection()
    pools = {query: list(grades) for query, grades in made.qrels.items()}
    retriever = Retriever(None, made.documents, made.document_ids)
    full, _ = evaluate(retriever, made, "bm25")
    pool, run = evaluate(retriever, dataclasses.replace(made, pools=pools), "bm25", "pool")
    assert {query: set(scores) for query, scores in run.items()} == {query: set(ids) for query, ids in pools.items()}
    assert pool.metrics["ndcg@10"] > full.metrics["ndcg@10"]
    assert (full.protocol, pool.protocol) == ("full corpus, 30 documents", "pool of the row's passages")
    with pytest.raises(UserError, match="no pools"):
        evaluate(retriever, made, "bm25", "pool")


def test_of_a_run_only_the_pools_count_by_their_protocol() -> None:
    made = collection(queries=3)
    pools = {query: list(grades) for query, grades in made.qrels.items()}
    run = {"q0": dict.fromkeys(made.document_ids, 1.0) | {"d0": 3.0, "d1": 2.0}, "q1": {pools["q1"][0]: 1.0}}
    with_pools = dataclasses.replace(made, pools=pools)
    found = measure(run, with_pools, "some", "pool")
    inside = run | {"q0": {id: score for id, score in run["q0"].items() if id in pools["q0"]}}
    assert found.protocol == "pool of the row's passages"
    assert {name: list(values) for name, values in found.per_query.items()} == {
        name: list(values) for name, values in measure(inside, made, "some").per_query.items()
    }
    assert found.metrics["ndcg@10"] > measure(run, with_pools, "some").metrics["ndcg@10"]
    with pytest.raises(UserError, match="made has no pools of passages; measure it with --protocol full"):
        measure(run, made, "some", "pool")


def test_a_query_that_nobody_judged_counts_as_nothing_found() -> None:
    made = collection(queries=3)
    judged = dataclasses.replace(made, qrels=made.qrels | {"q1": {}})
    run = {query: dict.fromkeys(made.qrels[query], 1.0) for query in made.query_ids}
    for name, values in measure(run, judged, "some").per_query.items():
        assert values[1] == 0.0, name
        assert values[0] > 0 < values[2], name


def test_what_no_method_scored_comes_last_in_a_pool() -> None:
    made = collection(queries=1)
    pools = {"q0": ["d0", "d1", "d2"]}
    asked = dataclasses.replace(made, queries=["d1 document number 1"], pools=pools, qrels={"q0": {"d1": 1}})
    retriever = Retriever(None, ["apples", "number", "pears"], ["d0", "d1", "d2"])
    three = dataclasses.replace(asked, documents=["apples", "number", "pears"], document_ids=["d0", "d1", "d2"])
    _, run = evaluate(retriever, three, "bm25", "pool")
    assert run["q0"].pop("d1") > 0
    assert run == {"q0": {"d0": -1.0, "d2": -1.0}}


def test_dense_is_what_is_measured_unless_another_method_is_named_and_the_weight_counts(tiny_base: str) -> None:
    made = collection()
    retriever = Retriever(TwoTowersModel(ModelConfig(base=tiny_base)), made.documents, made.document_ids)
    dense, run = evaluate(retriever, made)
    assert (dense.method, dense.collection, dense.protocol) == ("dense", "made", "full corpus, 30 documents")
    assert run == evaluate(retriever, made, "dense")[1]
    runs = [evaluate(retriever, made, "hybrid", weight=weight)[1] for weight in (0.2, 0.8)]
    assert runs[0] != runs[1]
    pools = dataclasses.replace(made, pools={query: list(grades) for query, grades in made.qrels.items()})
    in_pools = [evaluate(retriever, pools, "hybrid", "pool", weight)[1] for weight in (0.2, 0.8)]
    assert in_pools[0] != in_pools[1]
    with pytest.raises(UserError, match="other"):
        evaluate(retriever, dataclasses.replace(made, name="other", document_ids=[f"x{id}" for id in range(30)]))


def test_a_comparison_says_all_of_what_it_found() -> None:
    a, b = np.random.default_rng(1).integers(0, 10, (2, 40)) / 10
    differences = a - b
    found = compare(result_of(a), result_of(b), seed=3)
    draw, extreme = np.random.default_rng(3), 0
    for _ in range(PERMUTATIONS // 500):
        signs = draw.integers(0, 2, (500, 40), dtype=np.int8) * 2 - 1
        extreme += int((abs(signs @ differences) / 40 >= abs(differences.mean()) - 1e-12).sum())
    assert found == Comparison(
        metric="ndcg@10",
        mean_a=a.mean(),
        mean_b=b.mean(),
        difference=differences.mean(),
        interval=bootstrap(differences, 3),
        p_value=(extreme + 1) / (PERMUTATIONS + 1),
        wins=18,
        losses=18,
        ties=4,
    )
    assert found.interval != bootstrap(differences)
    assert compare(result_of(a), result_of(b)) == compare(result_of(a), result_of(b), "ndcg@10", seed=0)


def test_what_is_reported_names_its_protocol() -> None:
    made = collection(queries=3)
    best = {query: max(grades, key=lambda id: grades[id]) for query, grades in made.qrels.items()}
    result = measure({query: {"d0": 1.0, id: 0.5 + int(query[1:])} for query, id in best.items()}, made, "some")
    metrics = {name: round(values.mean(), 6) for name, values in result.per_query.items()}
    intervals = {name: [round(one, 6) for one in bootstrap(values)] for name, values in result.per_query.items()}
    assert any(value != round(value, 5) for value in metrics.values())
    assert result.as_dict() == {
        "collection": "made",
        "method": "some",
        "protocol": "full corpus, 30 documents",
        "documents": 30,
        "queries": 3,
        **metrics,
        "interval_95": intervals,
    }
    low, high = result.intervals["ndcg@10"]
    assert low > 0.1
    shown = [f"{metrics[name]:.4f}" for name in ("ndcg@10", "mrr@10", "recall@100", "recall@1000")]
    assert [line.split() for line in table([result])] == [
        ["ndcg@10", "mrr@10", "recall@100", "recall@1000"],
        ["some", shown[0], "±", f"{(high - low) / 2:.4f}", *shown[1:]],
    ]
    assert [len(line) for line in table([result])] == [12 + 1 + 16 + 1 + 8 + 1 + 11 + 1 + 12] * 2


def test_a_single_query_has_no_interval() -> None:
    made = collection(queries=1)
    result = measure({"q0": {"d0": 1.0}}, made, "some")
    assert result.intervals == dict.fromkeys(result.metrics)
    assert result.as_dict()["interval_95"] == dict.fromkeys(result.metrics)
    assert compare(result, result).interval is None
    assert interval_of_ndcg_10(Ranking(np.array([[0]]), np.array([[1.0]], dtype=np.float32)), made) is None
    several = measure({}, collection(queries=3), "some")
    lines = table([result, several])
    assert ["±" in line for line in lines] == [False, False, True]
    assert len({len(line) for line in lines}) == 1
