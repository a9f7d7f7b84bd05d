"""A cross-encoder scores in PyTorch as it does as a graph, and reorders the best hits of a search."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from freemvmt.config import RerankConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.search import reranker as reranking
from freemvmt.search.reranker import Reranker, load_reranker
from freemvmt.search.retriever import Retriever
from freemvmt.storage import hub

from encoders import QUERY, TEXTS, write_cross_encoder


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_graph_scores_as_its_model(kind: str, labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Reranker(str(write_cross_encoder(tmp_path / "cross", kind, labels))).scores(QUERY, TEXTS)
    folder = write_cross_encoder(tmp_path / "graph", kind, labels, graph=True)
    shutil.copy(tmp_path / "cross/tokenizer.json", folder)  # equally frequent pieces come in any order
    monkeypatch.setattr(reranking, "_MAX_TOKENS", 50)
    for place in ("onnx/model.onnx", "model.onnx"):
        if place == "model.onnx":
            shutil.move(folder / "onnx/model.onnx", folder / place)
            (folder / "config.json").unlink()
        np.testing.assert_allclose(Reranker(str(folder), 40).scores(QUERY, TEXTS), expected, atol=1e-4)


def test_a_graph_needs_no_pytorch(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "cross", graph=True)
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from freemvmt.search.reranker import Reranker
print(Reranker({str(folder)!r}).scores({QUERY!r}, {TEXTS!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(json.loads(done.stdout), Reranker(str(folder)).scores(QUERY, TEXTS), atol=1e-6)


def test_without_pytorch_the_graph_is_taken_and_weights_alone_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = write_cross_encoder(tmp_path / "graph", graph=True)
    weights = write_cross_encoder(tmp_path / "cross")
    assert hub.cross_encoder_files(str(graph), "--rerank") == (graph / "onnx/model.onnx", graph)
    shutil.copytree(graph / "onnx", weights / "onnx")
    assert hub.cross_encoder_files(str(weights), "--rerank") == (weights / "model.safetensors", weights)
    monkeypatch.setattr(hub, "_is_installed", lambda _: False)
    assert hub.cross_encoder_files(str(weights), "--rerank") == (weights / "onnx/model.onnx", weights)
    shutil.rmtree(weights / "onnx")
    monkeypatch.setitem(sys.modules, "freemvmt.towers.cross_encoder", None)
    with pytest.raises(UserError, match="not installed; install two-towers whole, or give"):
        Reranker(str(weights))


def test_a_query_keeps_half_of_the_tokens(tmp_path: Path) -> None:
    reranker = Reranker(str(write_cross_encoder(tmp_path / "cross")))
    room = 40 - 3
    lengths = {(90, 90): (18, 19), (1, 90): (1, 36), (90, 1): (18, 1), (30, 7): (30, 7), (30, 8): (18, 8)}
    for (of_query, of_text), expected in lengths.items():
        (pair,) = reranker._pairs("a " * of_query, ["a " * of_text])
        assert tuple(pair.sequence_ids.count(number) for number in (0, 1)) == expected
        assert len(pair.ids) == sum(expected) + 40 - room
    assert reranker.scores("", ["", "\ud800"])[1] > 0
    assert reranker.scores("tower", []) == []
    with pytest.raises(TypeError, match="must be a list of texts"):
        reranker.scores("tower", "stone")


class ByLength:
    """The longer a text, the higher its score."""

    name = "by length"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def scores(self, _: str, texts: Iterable[str]) -> list[float]:
        self.asked.append(list(texts))
        return [len(text) / 1000 for text in self.asked[-1]]


@pytest.fixture
def retriever(tiny_model: TwoTowersModel) -> Retriever:
    return Retriever(tiny_model, [f"a tower{' of stone' * (number % 5)} {number}" for number in range(20)])


@pytest.mark.parametrize("method", ["hybrid", "dense", "bm25"])
def test_the_best_hits_are_scored_again(retriever: Retriever, method: Any) -> None:
    plain = retriever.search("tower", 20, method)
    assert all(hit.rerank is None for hit in plain)
    retriever.reranker = cast("Reranker", fake := ByLength())
    assert retriever.search("tower", 20, method, rerank=0) == plain
    assert fake.asked == []
    found = retriever.search("tower", 20, method, rerank=7)
    assert fake.asked == [[hit.text for hit in plain[:7]]]
    assert found[7:] == plain[7:]
    assert sorted(hit.id for hit in found[:7]) == sorted(hit.id for hit in plain[:7])
    best = [len(hit.text) / 1000 for hit in found[:7]]
    assert [hit.score for hit in found[:7]] == [hit.rerank for hit in found[:7]] == best == sorted(best, reverse=True)
    sides = {hit.id: (hit.dense, hit.bm25) for hit in plain}
    assert all((hit.dense, hit.bm25) == sides[hit.id] for hit in found)
    assert retriever.search("tower", 3, method, rerank=7) == found[:3]  # more are read than are returned
    both = retriever.search(["tower", "stone"], 3, method)
    one = retriever.search("tower", 3, method)
    assert one == retriever.search("tower", 3, method, rerank=True)
    assert [hit.id for hit in both[0]] == [hit.id for hit in one]
    assert len(fake.asked[-1]) == 20  # 50, but there are no more
    assert [len(hits) for hits in both] == [3, 3]


def test_equal_scores_keep_the_order(retriever: Retriever) -> None:
    plain = retriever.search("tower", 5)
    fake = ByLength()
    fake.scores = lambda _, texts: [0.5 for _ in texts]  # type: ignore[method-assign]
    retriever.reranker = cast("Reranker", fake)
    assert [hit.id for hit in retriever.search("tower", 5)] == [hit.id for hit in plain]


def test_a_wrong_depth_and_none_to_ask_are_refused(retriever: Retriever) -> None:
    for depth in (5, True):
        with pytest.raises(UserError, match="give the retriever a reranker"):
            retriever.search("tower", rerank=depth)
    assert retriever.search("tower", rerank=0) == retriever.search("tower", rerank=False) == retriever.search("tower")
    retriever.reranker = cast("Reranker", ByLength())
    wrong: Any
    for wrong in (-1, 2.5, "5"):
        with pytest.raises(UserError, match=r"rerank is .*; give a number of hits, or 0"):
            retriever.search("tower", rerank=wrong)
    with pytest.raises(UserError, match="k is 0"):
        retriever.search("tower", 0)


def test_a_document_is_read_with_its_title(bundle: Path) -> None:
    retriever = Retriever.load(bundle)
    retriever.reranker = cast("Reranker", fake := ByLength())
    hits = {f"{hit.title} {hit.text}" for hit in retriever.search("finance velocity", 5, rerank=5)}
    retriever.close()
    assert hits == set(fake.asked[0])


@pytest.mark.parametrize("depth", [0, 1001, -5])
def test_flags_name_a_depth_from_1_to_1000(depth: int) -> None:
    with pytest.raises(UserError, match=f"--rerank-depth is {depth}; give a number from 1 to 1000"):
        load_reranker(RerankConfig(rerank="a", rerank_depth=depth))
    with pytest.raises(UserError, match="--rerank-depth is for --rerank"):
        load_reranker(RerankConfig(rerank_depth=5))
    assert load_reranker(RerankConfig()) is None


def edited(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return edit


def written(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors in"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer.json in"),
    "broken weights": (written("model.safetensors", b"{"), "holds no sequence classifier"),
    "broken tokenizer": (written("tokenizer.json", b"{"), "tokenizer.json cannot be read"),
    "broken config": (written("config.json", b"{"), "config.json cannot be read"),
    "a list as config": (written("config.json", b"[1]"), "holds no JSON object"),
    "no such kind": (edited(model_type="none"), "holds no sequence classifier"),
    "code of its own": (
        edited(model_type="mine", auto_map={"AutoModelForSequenceClassification": "mine.Mine"}),
        "holds no sequence classifier",
    ),
    "too few positions": (edited(max_position_embeddings=4), "too few for a query and a text"),
    "broken graph": (written("model.onnx", b"{"), "no cross-encoder"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_cross_encoder_is_refused_in_one_line(damage: str, tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "cross")
    change, said = DAMAGES[damage]
    change(folder)
    if damage == "broken graph":
        (folder / "model.safetensors").unlink()
        said = "model.onnx cannot be read"
    with pytest.raises(UserError, match=said) as caught:
        Reranker(str(folder))
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value)


def test_an_encoder_without_a_head_and_other_heads_are_refused(tiny_encoder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"encoder.* lacks weights of a classifier \(.*\); give a cross-encoder"):
        Reranker(tiny_encoder)
    for labels in (3, 5):
        folder = write_cross_encoder(tmp_path / f"cross{labels}", labels=labels)
        with pytest.raises(UserError, match=f"has {labels} outputs; give a cross-encoder"):
            Reranker(str(folder))
    folder = write_cross_encoder(tmp_path / "graph", labels=5, graph=True)
    with pytest.raises(UserError, match="graph has 5 outputs; give a cross-encoder"):
        Reranker(str(folder))
    broken = write_cross_encoder(tmp_path / "nan")
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: torch.full_like(value, float("nan")) for name, value in weights.items()}, broken / "model.safetensors"
    )
    with pytest.raises(UserError, match="scores that are no numbers"):
        Reranker(str(broken))


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=re.escape("go online, or give --rerank FOLDER")):
        Reranker("owner/none")
    with pytest.raises(UserError, match="is no folder and no Hub name"):
        Reranker("no such folder")


def test_a_model_of_the_cache_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_cross_encoder(tmp_path / "cross")
    monkeypatch.setattr(hub, "_cached", lambda name, files, *_: [folder / file for file in files])
    assert Reranker("owner/cross").name == "owner/cross"
    assert Reranker(str(folder)).name == "cross"
    monkeypatch.setattr(hub, "_is_installed", lambda _: False)
    assert hub.cross_encoder_files("owner/cross", "--rerank") == (folder / "onnx/model.onnx", folder)
