"""Runs are written so that they read back as they were, and read so that nothing counts that should not."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from freemvmt.cli import main
from freemvmt.config import Method, ModelConfig, Protocol
from freemvmt.data.collection import Collection
from freemvmt.errors import UserError
from freemvmt.evaluation.metrics import evaluate, measure
from freemvmt.evaluation.runs import check_run, in_trec_order, read_run, tag_of, to_run, write_run
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.retriever import Retriever

from beir_folder import beir
from refusals import refusal

WORDS = "apple river tower green whale garden bridge winter candle mirror".split()


def collection(documents: int = 60, queries: int = 20, seed: int = 0, name: str = "d{}") -> Collection:
    """Texts of a few words, so that many scores are near each other or equal; each query has a pool."""
    draw = np.random.default_rng(seed)
    ids = [name.format(number) for number in range(documents)]
    texts = [" ".join(draw.choice(WORDS, int(draw.integers(2, 9)))) for _ in ids]
    asked = [" ".join(draw.choice(WORDS, 3)) for _ in range(queries)]
    qrels = {
        f"q{number}": {ids[one]: int(draw.integers(1, 4)) for one in draw.choice(documents, 5, False)}
        for number in range(queries)
    }
    pools = {
        query: list(dict.fromkeys([*grades, *(ids[one] for one in draw.choice(documents, 8, False))]))
        for query, grades in qrels.items()
    }
    return Collection("made", ids, texts, list(qrels), asked, qrels, pools)


def same_when_read(made: Collection, run: dict[str, dict[str, float]], path: Path, protocol: Protocol = "full") -> None:
    write_run(run, path, "x")
    before, after = (measure(one, made, "x", protocol) for one in (run, read_run(path, made)))
    for name, values in before.per_query.items():
        assert (values == after.per_query[name]).all(), name  # to the last digit
    assert (before.metrics, before.intervals) == (after.metrics, after.intervals)
    for query, scores in read_run(path, made).items():
        assert [id for id, _ in in_trec_order(scores)] == [id for id, _ in in_trec_order(run[query])]
    again = path.read_bytes()
    write_run(read_run(path, made), path, "x")
    assert path.read_bytes() == again


@pytest.mark.parametrize("protocol", ["full", "pool"])
@pytest.mark.parametrize("method", ["dense", "bm25", "hybrid"])
def test_what_was_measured_is_what_the_file_measures(
    method: Method, protocol: Protocol, tiny_base: str, tmp_path: Path
) -> None:
    made = collection()
    retriever = Retriever(TwoTowersModel(ModelConfig(base=tiny_base)), made.documents, made.document_ids)
    _, run = evaluate(retriever, made, method, protocol)
    same_when_read(made, run, tmp_path / "run", protocol)


@pytest.mark.parametrize("seed", range(20))
def test_scores_that_are_as_near_as_numbers_can_be_survive(seed: int, tmp_path: Path) -> None:
    made, draw = collection(seed=seed), np.random.default_rng(seed)
    scale = np.float32(10.0 ** draw.integers(-30, 30))
    numbers = np.stack([draw.permutation(60) for _ in made.query_ids])
    scores = np.full((20, 60), draw.normal() * scale, np.float32)
    steps = draw.integers(0, 25, scores.shape)  # of the last bit; some are equal
    scores.view(np.int32)[:] += steps.astype(np.int32)
    same_when_read(made, to_run(Ranking(numbers, scores), made), tmp_path / "run")


def test_numbers_finer_than_32_bits_tie_as_trec_eval_has_them(tmp_path: Path) -> None:
    made = dataclasses.replace(collection(), query_ids=["q0"], queries=["a"], qrels={"q0": {"d1": 1}})
    same_when_read(made, {"q0": {"d1": 0.1, "d2": 0.1 + 1e-12, "d3": 0.05}}, tmp_path / "run")
    assert in_trec_order(read_run(tmp_path / "run", made)["q0"])[0][0] == "d2"  # by id, downwards


def test_a_run_file_has_the_six_fields_of_trec(tmp_path: Path) -> None:
    write_run({"q": {"é": 0.5, "z": 1.25, "a": 1 / 3}}, tmp_path / "run", "tag")
    lines = "q Q0 z 1 1.25 tag\nq Q0 é 2 0.5 tag\nq Q0 a 3 0.333333343 tag\n"
    assert (tmp_path / "run").read_bytes() == lines.encode()
    assert tag_of(tmp_path / "run") == "tag"


def test_equal_scores_stand_by_id_downwards() -> None:
    ranking = [("b", 2.0), ("d", 1.0), ("c", 1.0), ("a", 0.5)]
    assert in_trec_order(dict(sorted(ranking))) == ranking


@pytest.mark.parametrize("name", ["my file {}.txt", "{}\u00a0", " {}", "a\u2028{}", "\u3000{}", "{}\x0b\x0c\x1c\x85"])
def test_ids_with_white_space_read_back(name: str, tmp_path: Path) -> None:
    made = collection(name=name)
    named = {query: f"{query} {name.format('q')}" for query in made.query_ids}
    made = dataclasses.replace(
        made,
        query_ids=list(named.values()),
        qrels={named[query]: grades for query, grades in made.qrels.items()},
        pools={},
    )
    check_run(made)
    _, run = evaluate(Retriever(None, made.documents, made.document_ids), made, "bm25")
    same_when_read(made, run, tmp_path / "run")
    assert (tmp_path / "run").read_text("utf-8").split("\n")[0].count("\t") == 5


@pytest.mark.parametrize("odd", ["a\tb", "a\nb", "a\r", "\ud800"])
def test_ids_that_no_run_can_hold_are_refused(odd: str, tmp_path: Path) -> None:
    plain = collection()
    ids = [odd, *plain.document_ids[1:]]
    with pytest.raises(UserError, match=r"the document id .* of made holds .*; leave out --run"):
        check_run(dataclasses.replace(plain, document_ids=ids))
    with pytest.raises(UserError, match=r"the query id .* of made holds .*; leave out --run"):
        check_run(dataclasses.replace(plain, query_ids=[odd, *plain.query_ids[1:]]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("q0 Q0 d1 1 0.5 t\nq0 Q0 d2 2 high t\n", "line 2: the score 'high' is not a finite number; write the run"),
        (f"q0 Q0 d1 1 {'long' * 9} t\n", f"the score '{'long' * 5}' is not"),
        ("q0 Q0 d1 1 1e300 t\n", "line 1: the score '1e300' is not a finite number"),
        ("q0 Q0 d1 1 1_0 t\n", "line 1: the score '1_0' is not a finite number"),
        ("q0 Q0 d1 1 nan t\n", "line 1: the score 'nan' is not a finite number"),
        ("q0 Q0 d1 1 0.5\n", "line 1: 5 fields, not the 6 of a TREC run"),
        (
            "q0 Q0 d1 1 0.9 t\n\nq0 Q0 d2 2 0.5 t\nq0 Q0 d1 3 0.1 t\n",
            "line 4: query q0 has the document d1 twice, first",
        ),
        (
            "q0 Q0 d1 1 0.9 t\nq0\tQ0\td1\t2\t0.9\tt\n",
            "line 2: query q0 has the document d1 twice, first in line 1; keep",
        ),
        ("q0 Q0 d1 1 0.9 t\nx Q0 d1 1 0.9 t\nx Q0 d1 1 0.8 t\n", "line 3: query x has the document d1 twice, first in"),
        ("q0 Q0 dx 1 0.9 t\n", "line 1: made has no document dx; compare runs of one collection"),
        ("x Q0 d1 1 0.9 t\n", "holds no query of made; compare runs of one collection"),
    ],
)
def test_what_is_no_sound_run_is_refused_with_its_line(lines: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "run").write_text(lines)
    with pytest.raises(UserError) as refused:
        read_run(tmp_path / "run", collection())
    assert said in str(refused.value)


def test_a_run_that_found_nothing_is_one_too(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_run({"q0": {}}, tmp_path / "run", "x")
    assert read_run(tmp_path / "run", collection()) == {}
    assert "is empty: a run that found nothing" in caplog.text
    assert tag_of(tmp_path / "run") == "run"


def test_what_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = beir(tmp_path / "odd", {"a\tb": ("", "red apple")}, {"q": "apple"}, [])
    (odd / "qrels" / "test.tsv").write_text("q 0 x 1\n")
    (odd / "corpus.jsonl").write_text('{"_id": "a\\tb", "text": "red"}\n{"_id": "x", "text": "apple"}\n')
    sound = beir(tmp_path / "sound", {"x": ("", "red apple")}, {"q": "apple"}, ["q\tx\t1"])
    (tmp_path / "folder").mkdir()

    def measured(*_: object) -> None:
        raise AssertionError("it was measured")

    monkeypatch.setattr("freemvmt.cli.evaluate._measured", measured)
    for words, said in (
        ([odd, "--run", tmp_path / "o"], r"the document id 'a\tb' of odd holds a tab or the end of a line"),
        ([sound, "--run", tmp_path / "folder"], "folder: that is a folder; give the name of a file"),
        ([sound, "--run", sound / "corpus.jsonl" / "o"], "a part of that path is a file"),
    ):
        assert said in refusal(capsys, tmp_path, "evaluate", "bm25", *words)


@pytest.mark.parametrize("verb", [["evaluate"], ["compare", "bm25"]])
def test_a_model_that_is_not_there_is_refused_where_the_method_needs_none(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = beir(tmp_path / "c", {"x": ("", "red apple")}, {"q": "apple"}, ["q\tx\t1"])
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", tmp_path / "nowhere", tmp_path / "empty", folder, "a b"):
        refusal(capsys, tmp_path, *verb, name, folder, "--method", "bm25")
    for name in ("bm25", "untrained"):
        assert main([*verb, name, str(folder), "--method", "bm25"]) == 0
