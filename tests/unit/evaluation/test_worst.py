"""Error analysis: which queries were lost, by how much, to what, and which words decided."""

import json
from pathlib import Path

import pytest

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.collection import Collection
from freemvmt.evaluation.error_analysis import lost_queries, print_lost_queries
from freemvmt.evaluation.metrics import measure
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever

TEXTS = {
    "a": "The tower of glass stands by the river.",
    "b": "A river, a river and a bridge.",
    "c": "Soldiers in the garden.",
    "d": "A bridge over the river near the tower",
}
COLLECTION = Collection(
    "made", list(TEXTS), list(TEXTS.values()), ["q1", "q2", "q3"], ["tower of glass", "river", "garden"],
    {"q1": {"a": 2, "d": 1}, "q2": {"b": 1}, "q3": {"c": 1}},
)  # fmt: skip
OURS = {"q1": {"c": 0.9, "b": 0.8, "d": 0.3, "a": 0.2}, "q2": {"b": 0.5, "a": 0.4}, "q3": {"a": 0.7}}
BM25 = {"q1": {"a": 7.5, "d": 2.0}, "q2": {"a": 3.0, "b": 2.0}, "q3": {"c": 5.0}}


def test_losses_are_the_largest_differences_with_both_rankings(
    tiny_base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_base))
    retriever = Retriever(model, list(TEXTS.values()), list(TEXTS))
    ours, bm25 = ((measure(run, COLLECTION, name), run) for name, run in (("dense", OURS), ("bm25", BM25)))
    lost = lost_queries(ours, bm25, COLLECTION, 20, retriever)
    assert [(one.query_id, one.rank, one.answer) for one in lost] == [("q3", None, "c"), ("q1", 4, "a")]  # q2 was won
    assert (lost[0].ndcg, lost[0].bm25_ndcg) == (0, 1)
    first = lost[1]
    assert [(one.rank, one.id, one.grade) for one in first.ranking] == [(1, "c", 0), (2, "b", 0), (3, "d", 1)]
    assert [(one.id, one.score) for one in first.bm25] == [("a", 7.5), ("d", 2.0)]
    assert [reason.id for reason in first.reasons] == ["c", "a"]
    for reason in first.reasons:
        shares = retriever.explain(first.query, reason.id)
        assert reason.cosine == pytest.approx(shares.score, abs=1e-6)
        assert sum(share for _, share in reason.words) == pytest.approx(shares.score, abs=1e-5)  # no more than 8 words
    assert max(first.reasons[1].words, key=lambda word: word[1])[0] in ("tower", "glass")
    river = lost_queries(ours, bm25, COLLECTION, 1)
    assert [one.query_id for one in river] == ["q3"]
    assert river[0].reasons == []

    print_lost_queries(lost, "dense", 3, Console())
    told = capsys.readouterr().out
    assert "lost most against BM25: 2 of 3 queries" in told
    assert "[a] dense has it at rank 4" in told
    assert "[c] not in dense's run" in told
    assert "3 *   0.300  [d] A bridge over the river near the tower" in told
    assert "why     [a] cosine" in told


def test_the_command_tells_and_refuses(tiny_base: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    TwoTowersModel(ModelConfig(base=tiny_base)).save(tmp_path / "model")
    folder = tmp_path / "made"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": id, "title": "", "text": text}) + "\n" for id, text in TEXTS.items())
    )
    queries = zip(COLLECTION.query_ids, COLLECTION.queries, strict=True)
    (folder / "queries.jsonl").write_text("".join(json.dumps({"_id": id, "text": text}) + "\n" for id, text in queries))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\nq2\tb\t1\nq3\tc\t1\n")
    run = tmp_path / "ours.run"
    run.write_text(
        "".join(f"{query} Q0 {id} 1 {score} x\n" for query, scores in OURS.items() for id, score in scores.items())
    )
    assert main(["evaluate", str(run), str(folder), "--worst", "5", "--json"]) == 0
    assert [one["query_id"] for one in json.loads(capsys.readouterr().out)["worst"]] == ["q3", "q1"]
    model = str(tmp_path / "model")
    assert main(["evaluate", model, str(folder), "--worst", "5", "--explain", "--method", "hybrid"]) == 0
    assert "lost most against BM25" in capsys.readouterr().out
    for words, said in (
        ([model, "--worst", "0"], "--worst is 0; give 1 or more"),
        ([model, "--explain"], "give --worst 20"),
        (["bm25", "--worst", "3"], "this is BM25"),
        ([model, "--worst", "3", "--method", "bm25"], "this is BM25"),
        ([str(run), "--worst", "3", "--explain"], "a run, which knows no words"),
    ):
        assert main(["evaluate", words[0], str(folder), *words[1:]]) == 2
        assert said in capsys.readouterr().err
