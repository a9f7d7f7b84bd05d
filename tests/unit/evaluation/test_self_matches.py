"""A document that is the query itself is no answer to it: no ranking holds it, and no training takes it."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from freemvmt.cli import main
from freemvmt.config import DataConfig, MiningConfig, ModelConfig, TrainConfig
from freemvmt.data.collection import Collection, merge, to_collection
from freemvmt.data.examples import select, to_examples, without_queries
from freemvmt.data.judgements import from_pairs
from freemvmt.data.load import load_collection, validation_of
from freemvmt.data.values import folded
from freemvmt.evaluation.metrics import evaluate, measure, ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import prepare
from freemvmt.trainer.mining import mine
from freemvmt.trainer.objective import Objective

from beir_folder import beir

AT_RANK_2 = 0.63093  # 1 / log2(3): one relevant document, at rank 2
TEXTS = {
    "d1": ("", "cats sleep all day"),
    "d2": ("", "cats sleep most of the day and night"),
    "d3": ("", "the tower is 300 metres high"),
}
FULL = "full corpus, 3 documents"


def arguana(folder: Path, query: str = "cats sleep all day", title: str = "", qrels: str = "d1\td2\t1") -> Path:
    """Three documents and a query under the id of the first one."""
    return beir(folder, TEXTS | {"d1": (title, TEXTS["d1"][1])}, {"d1": query}, [qrels])


def measured(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[float, str]:
    assert main(["evaluate", *map(str, words), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found["ndcg@10"], found["protocol"]


@pytest.mark.parametrize(
    ("change", "flags", "score", "left_out"),
    [
        ({}, [], 1.0, True),
        ({"query": "Cats  sleep\tALL day "}, [], 1.0, True),
        ({"title": "On cats"}, [], 1.0, True),  # ArguAna's documents have titles, its queries have not
        ({"title": "On cats", "query": "On cats cats sleep all day"}, [], 1.0, True),
        ({}, ["--no-ignore-identical-ids"], AT_RANK_2, False),
        ({}, ["--ignore-identical-ids", "False"], AT_RANK_2, False),
        ({"query": "cats sleep all"}, [], AT_RANK_2, False),  # another text under the same id
        ({"query": "sleep all day"}, [], AT_RANK_2, False),  # a document's end is not the document
        ({"query": "cats sleep all"}, ["--ignore-identical-ids"], 1.0, True),
        ({"qrels": "d1\td1\t1"}, [], 1.0, False),  # judged relevant: what is to be found
        ({"qrels": "d1\td1\t1"}, ["--ignore-identical-ids"], 0.0, True),
    ],
)
def test_the_document_that_is_the_query_is_left_out(
    change: dict[str, str], flags: list[str], score: float, left_out: bool, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = arguana(tmp_path / "c", **change)
    protocol = FULL + "; 1 self-match left out" * left_out
    assert measured(capsys, "bm25", folder, *flags) == (pytest.approx(score, abs=1e-5), protocol)


def test_runs_comparisons_and_models_follow_one_rule(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, model, run = arguana(tmp_path / "c"), str(tmp_path / "model"), tmp_path / "out.run"
    TwoTowersModel(ModelConfig(base=tiny_base)).save(model)
    for method in ("dense", "hybrid"):
        assert measured(capsys, model, folder, "--method", method, "--run", run)[0] == 1.0
        assert [line.split()[2] for line in run.read_text().splitlines()] == ["d2", "d3"]
    run.write_text("d1 Q0 d1 1 0.9 t\nd1 Q0 d2 2 0.5 t\n")
    assert measured(capsys, run, folder) == (1.0, f"{FULL}; 1 self-match left out")
    assert measured(capsys, run, folder, "--no-ignore-identical-ids")[0] == pytest.approx(AT_RANK_2, abs=1e-5)
    assert main(["compare", str(run), "bm25", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"]["ties"] == 1
    assert found["a"]["protocol"] == found["b"]["protocol"] == f"{FULL}; 1 self-match left out"
    assert main(["evaluate", model, str(folder), "--worst", "3", "--json"]) == 0  # nothing is lost
    assert json.loads(capsys.readouterr().out)["worst"] == []


def doubled(documents: int) -> Collection:
    """Every query is a document, and the next document answers it."""
    ids = [f"d{number}" for number in range(documents)]
    texts = [f"number {number} of all" for number in range(documents)]
    return Collection("doubled", ids, texts, ids[:5], texts[:5], {ids[n]: {ids[n + 1]: 1} for n in range(5)})


def test_a_ranking_is_as_deep_as_without_a_self_match(tiny_base: str) -> None:
    made = doubled(1200)
    retriever = Retriever(TwoTowersModel(ModelConfig(base=tiny_base)), made.documents, made.document_ids)
    for method in ("dense", "bm25", "hybrid"):
        result, run = evaluate(retriever, made, method)
        for query, scores in run.items():
            assert len(scores) == 1000
            assert query not in scores
        assert result.protocol == "full corpus, 1200 documents; 5 self-matches left out"
    plain = dataclasses.replace(made, own={})
    for scores in evaluate(retriever, plain)[1].values():
        assert len(scores) == 1000
    pools = dataclasses.replace(made, pools={query: [query, "d9", "d1"] for query in made.query_ids})
    for query, scores in evaluate(retriever, pools, "dense", "pool")[1].items():
        assert scores.keys() == {query, "d9", "d1"} - {query}


def test_an_epoch_ends_with_the_score_that_evaluate_gives() -> None:
    made = doubled(30)
    order = np.random.default_rng(0)
    documents = np.stack([order.permutation(30) for _ in range(5)])
    documents[:, :1] = np.arange(5)[:, None]  # the query itself comes first, and again in its place
    ranking = Ranking(documents[:, :11], np.linspace(1, 0, 11, dtype=np.float32)[None].repeat(5, 0))
    run = {f"d{n}": {f"d{one}": float(11 - rank) for rank, one in enumerate(documents[n, :11])} for n in range(5)}
    assert ndcg_10(ranking, made) == pytest.approx(measure(run, made, "x").metrics["ndcg@10"])
    assert ndcg_10(ranking, made) != ndcg_10(ranking, dataclasses.replace(made, own={}))


def test_validation_leaves_them_out_too_and_says_so(tiny_base: str, tmp_path: Path) -> None:
    folder = arguana(tmp_path / "c", title="On cats")
    for part in ("train", "dev"):
        (folder / "qrels" / f"{part}.tsv").write_text((folder / "qrels" / "test.tsv").read_text())
    found = validation_of(folder, DataConfig())
    assert found is not None
    assert {query: found.documents[found.document_ids.index(id)] for query, id in found.self_matches.items()} == {
        "0": "On cats cats sleep all day"
    }
    both = merge([found, load_collection(str(folder), "test", DataConfig()), doubled(9)])
    texts = dict(zip(both.document_ids, both.documents, strict=True))
    asked = dict(zip(both.query_ids, both.queries, strict=True))
    assert len(both.self_matches) == 7
    assert all(texts[id].endswith(asked[query]) for query, id in both.self_matches.items())


ROWS = [
    ("Red apple", ["red  APPLE", "a sweet fruit"], ["red apple", "a whale"]),
    ("blue whale", ["red apple"], []),
    ("green pear", ["Green pear"], ["a whale"]),
]


def test_training_takes_no_passage_that_is_its_query(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        examples = to_examples(from_pairs(ROWS), "here")
    assert "here: 3 passages are the query itself; left out" in caplog.text
    assert "here: 1 row has no passage that answers the query; left out" in caplog.text
    assert examples.queries == ["Red apple", "blue whale"]
    texts = [[examples.passages[one] for one in lists] for lists in (*examples.positives, *examples.negatives)]
    assert texts == [["a sweet fruit"], ["red apple"], ["a whale"], []]
    # Another query's answer that is this query is no negative of it.
    never = [[examples.passages[one] for one in lists] for lists in examples.never_negatives]
    assert never == [["a sweet fruit", "red apple"], ["red apple"]]
    one = select(examples, np.array([0]))
    assert [[one.passages[number] for number in lists] for lists in one.never_negatives] == [["a sweet fruit"]]


def test_a_measurement_takes_the_rows_as_they_are() -> None:
    collection = to_collection(to_examples(from_pairs(ROWS), "here", as_judged=True), "here")
    assert [len(grades) for grades in collection.qrels.values()] == [2, 1, 1]
    assert collection.self_matches == {}


def test_neither_a_batch_nor_mining_makes_a_negative_of_the_query(tiny_base: str, tmp_path: Path) -> None:
    rows = [{"query": f"apple {n}", "passage": f"apple {n + 1}"} for n in range(60)]  # each answer is the next query
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = TrainConfig(base=tiny_base, dataset=(str(tmp_path / "rows.jsonl"),), batch_size=8, wandb=False)
    data, model = prepare(config), TwoTowersModel(config.model_config())
    examples = data.examples
    queries, passages = examples.pairs()
    known = Objective(config, model, data)._encoded(queries, passages).known
    pairs = {
        (row, column)
        for row, query in enumerate(queries)
        for column, passage in enumerate(passages)
        if passage in examples.positives[query] or examples.passages[passage] == examples.queries[query]
    }
    assert set(zip(known.rows.tolist(), known.columns.tolist(), strict=True)) == pairs
    assert len(pairs) > len(queries)
    mined = mine(model, data, MiningConfig(by="both", first_rank=1, last_rank=40, count=40, margin=0.0))
    assert mined.identical > 0
    for number, negatives in enumerate(mined.negatives):
        assert examples.queries[number] not in {examples.passages[one] for one in negatives}


LONG = "How do I change the oil of a tractor without a pit, and how often?"
SPELLINGS = (
    LONG,
    LONG.upper(),
    f"  {LONG} ",
    LONG.replace(" ", "\n"),
    LONG.replace(" of a ", "  of\x1ca\t"),
    LONG.replace("o", "O").replace("k", "\u212a"),  # the sign of Kelvin is an upper case of k
    "how",
    "HOW\u00a0",
    "\u039f\u0394\u039f\u03a3",  # the last letter has a lower case of its own at the end of a word
    " " * 40 + "how",
)
OTHERS = (
    LONG[:-1],
    LONG[:32],
    LONG[:33],
    LONG.replace(" ", ""),
    LONG + " Yes",
    "ho",
    "\u039f\u0394\u039f\u03a3\u0391",
    "",
)


@pytest.mark.parametrize("query", [LONG, "how", "\u03bf\u03b4\u03bf\u03c2", LONG[:32]])
def test_a_passage_is_the_query_in_any_spelling_and_no_other_is(query: str) -> None:
    texts = [*SPELLINGS, *OTHERS]
    pairs = from_pairs([(query, ["an answer", *texts], [])])
    expected = [text for text in ["an answer", *texts] if folded(text) != folded(query) and text]
    assert to_examples(pairs, "here").passages == list(dict.fromkeys(expected))
    examples = to_examples(from_pairs([(text, ["an answer"], []) for text in texts if text]), "here")
    rest = [text for text in examples.queries if folded(text) != folded(query)]
    assert without_queries(examples, [query]).queries == rest
