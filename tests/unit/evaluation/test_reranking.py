"""A cross-encoder over a run: the best documents in its order, the others behind them; and the commands' `--rerank`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.collection import Collection
from freemvmt.evaluation.metrics import measure
from freemvmt.evaluation.reranking import rerank_run
from freemvmt.evaluation.runs import in_trec_order, read_run, write_run
from freemvmt.model import TwoTowersModel
from freemvmt.search.reranker import Reranker
from freemvmt.search.retriever import Retriever

from beir_folder import beir
from encoders import write_cross_encoder
from refusals import refusal

NUMBERS = [3, 9, 1, 7, 5]
TEXTS = {f"d{number}": ("On towers", f"a tower of stone number {number}") for number in range(12)}


class ByNumber:
    """The score of a text is the number at its end."""

    name = "numbers"

    def scores(self, _: str, texts: Iterable[str]) -> list[float]:
        return [int(text.split()[-1]) / 100 for text in texts]


def test_the_best_of_a_run_are_scored_again_and_the_others_follow(tmp_path: Path) -> None:
    ids = [f"d{number}" for number in NUMBERS]
    collection = Collection(
        "made", ids, [f"text {number}" for number in NUMBERS], ["q", "r"], ["a", "b"], {"q": {"d9": 1}, "r": {"d5": 1}}
    )
    run = {"q": {id: 10.0 - rank for rank, id in enumerate(ids)}, "r": {}}
    found = rerank_run(run, collection, cast("Reranker", ByNumber()), 3)
    order = ["d9", "d3", "d1", "d7", "d5"]
    assert [id for id, _ in in_trec_order(found.run["q"])] == list(found.run["q"]) == order
    assert list(found.run["q"].values()) == [0.09, 0.03, 0.01, -1.0, -2.0]
    assert (found.run["r"], found.model, found.depth) == ({}, "numbers", 3)
    assert found.median_ms >= 0
    write_run(found.run, tmp_path / "run", "x")
    assert [id for id, _ in in_trec_order(read_run(tmp_path / "run", collection)["q"])] == order
    result = measure(found.run, collection, "dense", note=found.note)
    assert result.protocol == "full corpus, 5 documents; the best 3 reranked by numbers"
    assert result.per_query["ndcg@10"].tolist() == [1.0, 0.0]
    assert result.per_query["recall@100"].tolist() == measure(run, collection, "dense").per_query["recall@100"].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranking")
    beir(folder / "beir", TEXTS, {"q1": "a tower number 3", "q2": "stone number 5"}, ["q1\td3\t1", "q2\td5\t1"])
    write_cross_encoder(folder / "cross")
    return folder


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert main([*map(str, words), "--json"]) == 0
    done = capsys.readouterr()
    return json.loads(done.out), done.err


def test_evaluate_reranks_and_writes_the_run_that_it_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, run = tmp_path / "plain.run", tmp_path / "again.run"
    before, report = said(capsys, "evaluate", "bm25", folder / "beir", "--run", plain)
    assert "rerank" not in before
    assert "ms a query" not in report
    flags = ("--rerank", folder / "cross", "--rerank-depth", 4)
    found, report = said(capsys, "evaluate", "bm25", folder / "beir", *flags, "--run", run)
    assert found["protocol"] == "full corpus, 12 documents; the best 4 reranked by cross"
    assert found["recall@100"] == before["recall@100"]
    assert found["rerank"] | {"median_ms": 0} == {"model": "cross", "depth": 4, "median_ms": 0}
    assert f"rerank       {found['rerank']['median_ms']:.0f} ms a query (median)" in report
    lines = [line.split() for line in run.read_text().splitlines()]
    old = [line.split() for line in plain.read_text().splitlines()]
    assert {line[5] for line in lines} == {"bm25+rerank"}
    reranker = Reranker(str(folder / "cross"))
    for query, text in (("q1", "a tower number 3"), ("q2", "stone number 5")):
        ids, old_ids = ([line[2] for line in one if line[0] == query] for one in (lines, old))
        assert ids[4:] == old_ids[4:]
        scores = dict(zip(old_ids, reranker.scores(text, [" ".join(TEXTS[id]) for id in old_ids[:4]]), strict=False))
        assert ids[:4] == [id for id, _ in in_trec_order(scores)]
    of_run, _ = said(capsys, "evaluate", plain, folder / "beir", *flags)  # a run can be reranked too
    assert of_run["ndcg@10"] == found["ndcg@10"]
    compared, _ = said(capsys, "compare", plain, run, folder / "beir")
    assert compared["b"]["ndcg@10"] == found["ndcg@10"]


def test_evaluate_reranks_the_passages_that_a_search_reranks(
    tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base, max_length=16))
    model.save(tmp_path / "model")
    bread = "Chapters on bread and music. " * 9
    long = {id: (title, f"{bread}\n\n{text}") for id, (title, text) in TEXTS.items()}
    queries = {"q1": "a tower of stone number 3", "q2": "stone number 5"}
    beir(tmp_path / "data", long, queries, ["q1\td3\t1", "q2\td5\t1"])
    read: dict[str, list[str]] = {}

    class Reading(ByNumber):
        def scores(self, query: str, texts: Iterable[str]) -> list[float]:
            read[query] = list(texts)
            return [0.5 for _ in read[query]]

    monkeypatch.setattr("freemvmt.search.reranker.load_reranker", lambda _: Reading())
    flags = ["--rerank", "numbers", "--rerank-depth", 5, "--method", "hybrid"]
    found, report = said(capsys, "evaluate", tmp_path / "model", tmp_path / "data", *flags)
    assert found["protocol"].endswith("; the best 5 reranked by numbers, by their passages")
    assert f"documents cut into {found['passages']} passages" in report
    texts, titles = [" ".join(long[id]) for id in long], [title for title, _ in long.values()]
    retriever = Retriever(model, texts, list(long), titles=titles)
    for query in queries.values():
        assert read[query] == [f"{hit.title} {hit.text}" for hit in retriever.search(query, 5)]
        assert bread not in "".join(read[query])
    (best,) = retriever.search(queries["q1"], 1, "bm25")
    assert (best.id, best.text[-8:]) == ("d3", "number 3")
    assert retriever.contents(queries["q1"], ["d3", "d7"], 1, "bm25") == [f"On towers {best.text}", texts[7]]

    uncut, report = said(capsys, "evaluate", tmp_path / "model", tmp_path / "data", *flags, "--no-cut")
    assert uncut["protocol"].endswith("; the best 5 reranked by numbers")
    assert "passages" not in uncut
    assert "passages" not in report
    assert all(text in texts for text in read[queries["q1"]])


def test_search_shows_the_order_of_the_cross_encoder(
    folder: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = said(capsys, "search", bundle, "finance velocity")
    assert all("rerank" not in hit for hit in plain["hits"])
    found, report = said(
        capsys, "search", bundle, "finance velocity", "--rerank", folder / "cross", "--rerank-depth", 5
    )
    assert "hybrid, reranked by cross, 60 documents" in report
    assert [hit["score"] for hit in found["hits"][:5]] == [hit["rerank"] for hit in found["hits"][:5]]
    assert found["hits"][5:] == plain["hits"][5:]
    retriever = Retriever.load(bundle)
    retriever.reranker = Reranker(str(folder / "cross"))
    expected = retriever.search("finance velocity", rerank=5)
    retriever.close()
    assert [hit["id"] for hit in found["hits"]] == [hit.id for hit in expected]


def test_what_cannot_rerank_is_refused(
    folder: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = write_cross_encoder(tmp_path / "five", labels=5)
    cases = {
        ("--rerank", tmp_path / "none"): "is no folder and no Hub name",
        ("--rerank", wrong): "five has 5 outputs",
        ("--rerank", folder / "cross", "--rerank-depth", 0): "--rerank-depth is 0; give a number from 1 to 1000",
        ("--rerank-depth", 5): "give --rerank MODEL",
    }
    for flags, message in cases.items():
        for command in (("search", bundle, "finance"), ("serve", bundle), ("evaluate", "bm25", folder / "beir")):
            assert message in refusal(capsys, tmp_path, *command, *flags)
