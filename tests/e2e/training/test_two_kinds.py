"""Towers of two kinds: a light one for queries over a heavy one for documents, frozen, and learned without labels."""

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from freemvmt.cli import main
from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.data.documents import Document
from freemvmt.data.load import load, load_collection
from freemvmt.errors import UserError
from freemvmt.evaluation.metrics import evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever
from freemvmt.storage.files import sha256_of
from freemvmt.towers.transformer import TransformerTower
from freemvmt.trainer.checkpoints import Checkpoints, last_checkpoint
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.samplers import make_sampler
from freemvmt.trainer.state import Progress
from freemvmt.training import train, train_and_save

from stopping import Stopped, StoppedAt, same

TEXTS = ["a tower", "two towers of stone", ""]
KINDS = ("average", "recurrent", "transformer")
PAIRS = [(query, document) for query in KINDS for document in KINDS if query != document]


@pytest.fixture(scope="module")
def config(tiny_encoder: str, rows_file: str) -> TrainConfig:
    """A light query tower over frozen documents, without labels."""
    return TrainConfig(
        base=tiny_encoder, dataset=(rows_file,), query_tower="average", document_tower="transformer", loss="align",
        epochs=3, batch_size=32, learning_rate=1e-3, wandb=False, validation_fraction=0.2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(config: TrainConfig) -> TrainingData:
    return prepare(config)


@pytest.mark.parametrize(("query", "document"), PAIRS)
def test_any_pair_of_kinds_learns_and_comes_back_equal(
    query: str, document: str, tiny_encoder: str, rows_file: str, tmp_path: Path
) -> None:
    config = TrainConfig(
        base=tiny_encoder, dataset=(rows_file,), query_tower=query, document_tower=document, hidden=8,  # type: ignore[arg-type]
        freeze="none", epochs=2, batch_size=32, learning_rate=1e-3, wandb=False, max_samples=200,
        output=str(tmp_path / "model"),
    )  # fmt: skip
    before = TwoTowersModel(config.model_config())
    result, output = train_and_save(config)
    model = result.model
    for name, weight in before.tensors().items():
        assert not torch.equal(weight, model.tensors()[name]) or "bias" in name or "scale" in name, name
    assert sorted(path.name for path in output.glob("*.safetensors") if "acc" not in path.name) == [
        "document.safetensors", "query.safetensors"
    ]  # fmt: skip
    loaded = TwoTowersModel.load(output)
    assert loaded.config == model.config
    assert torch.equal(loaded.encode_queries(TEXTS), model.encode_queries(TEXTS))
    assert torch.equal(loaded.encode_documents(TEXTS), model.encode_documents(TEXTS))
    retriever = Retriever(loaded, TEXTS[:2])
    vectors = loaded.cached_vectors("document", TEXTS[:2])
    assert torch.allclose(vectors, loaded.encode_documents(TEXTS[:2]), atol=1e-3)
    ranking = Retriever(loaded, TEXTS[:2], vectors=vectors).rank(["a tower"], 2, "dense")
    assert np.array_equal(ranking.documents, retriever.rank(["a tower"], 2, "dense").documents)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS[:2])))
    build(loaded, str(corpus), tmp_path / "bundle")
    with contextlib.closing(Retriever.load(tmp_path / "bundle")) as served:
        assert served.about["vectors_by"] == sha256_of(output / "document.safetensors")
        hits = served.search("a tower", k=2, method="dense")
        assert [hit.id for hit in hits] == [f"d{number}" for number in ranking.documents[0]]
        served.add([Document("new", "towers of glass")])
        assert "new" in {hit.id for hit in served.search("towers", k=3, method="dense")}
    assert loaded.space("document") == model.space("document") != before.space("document")


def test_a_frozen_tower_stays_and_its_vectors_are_what_is_aligned_to(
    config: TrainConfig, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TwoTowersModel(config.model_config())
    assert data.teacher_vectors is not None
    assert data.frozen is not None
    own = before.encode_documents(data.examples.queries)
    assert np.allclose(data.teacher_vectors.queries, own.numpy(), atol=1e-3)
    assert len(data.teacher_vectors.passages) == 0  # not a passage is encoded beside those of the validation
    result = train(config, data)
    given = train(dataclasses.replace(config, negatives="given"), data)  # there are none without labels
    assert given.history == result.history
    assert result.history[-1]["avg_train_loss"] < 0.8 * result.history[0]["avg_train_loss"]
    for name, weight in result.model.tensors().items():
        assert torch.equal(weight, before.tensors()[name]) is name.startswith("document."), name
    aligned = (result.model.encode_queries(data.examples.queries) * own).sum(1).mean()
    assert float(aligned) > float((before.encode_queries(data.examples.queries) * own).sum(1).mean())


def test_the_loop_never_runs_the_frozen_tower(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path))

    def refuse(*_: object) -> None:
        raise AssertionError("the frozen tower ran")

    prepare(config)  # its vectors are cached now
    monkeypatch.setattr("freemvmt.towers.transformer.TransformerTower.forward", refuse)
    train(config, prepare(config))


@pytest.mark.parametrize("dim", [None, 8])
def test_index_takes_vectors_of_the_cache_and_fills_it(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int | None
) -> None:
    monkeypatch.setenv("TWO_TOWERS_CACHE", str(tmp_path / "cache"))
    encoded: list[int] = []
    encode = TransformerTower.forward
    monkeypatch.setattr(
        TransformerTower, "forward", lambda self, tokens: (encoded.append(len(tokens)), encode(self, tokens))[1]
    )
    texts = [f"tower {number} of stone" for number in range(30)]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    model = TwoTowersModel(config.model_config())
    model.cached_vectors("document", texts[:20])
    encoded.clear()
    build(model, str(corpus), tmp_path / "first", dim=dim)
    assert encoded == [10]  # twenty were there
    build(model, str(corpus), tmp_path / "second", dim=dim)
    assert encoded == [10]
    with contextlib.closing(Retriever.load(tmp_path / "second")) as retriever:
        served = TwoTowersModel.load(tmp_path / "second" / "model")
        scores = served.encode_queries(["a tower"]) @ served.encode_documents(texts).T
        hits = retriever.search("a tower", k=30, method="dense")
    own = [scores[0, int(hit.id[1:])].item() for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(own, abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"query_tower": "recurrent", "hidden": 8, "pooling": "both"},
        {"loss": "infonce", "distill": 1.0},
        {"distill": 0.5, "matryoshka": (8,)},
        {"query_tower": "transformer", "document_tower": "average", "freeze": "queries", "loss": "triplet"},
    ],
    ids=str,
)
def test_a_stopped_training_goes_on_bit_for_bit(
    config: TrainConfig, tmp_path: Path, changes: dict[str, object]
) -> None:
    config = dataclasses.replace(config, epochs=2, max_samples=200, **changes)  # type: ignore[arg-type]
    data = prepare(config)
    whole = train(config, data)
    checkpoints = StoppedAt(tmp_path, config, data)
    checkpoints.last = whole.steps // 2 + 1
    with pytest.raises(Stopped):
        train(config, data, checkpoints=checkpoints)
    saved = last_checkpoint(tmp_path)
    frozen = "query" if config.frozen == "query" else "document"
    assert not [name for name in saved.tensors if name.startswith(f"model/{frozen}")]  # it is not written again
    assert same(train(config, data, checkpoints=Checkpoints(tmp_path, config, data, saved=saved)), whole)


def test_a_space_does_not_depend_on_the_place_of_the_encoder(tiny_encoder: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_encoder, tmp_path / "elsewhere")
    config = ModelConfig(base=tiny_encoder, document_tower="transformer")
    here, there = TwoTowersModel(config), TwoTowersModel(dataclasses.replace(config, base=str(tmp_path / "elsewhere")))
    assert here.space("document") == there.space("document")
    there.save(tmp_path / "model")
    description = json.loads((tmp_path / "model" / "config.json").read_text())
    assert str(tmp_path) not in json.dumps(description["encoder"])
    assert TwoTowersModel.load(tmp_path / "model").space("document") == here.space("document")


def test_evaluate_says_what_a_light_query_tower_keeps(
    config: TrainConfig, rows_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, output = train_and_save(dataclasses.replace(config, output=str(tmp_path / "light")))
    assert main(["evaluate", str(output), rows_file, "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    heavy = TwoTowersModel(ModelConfig(base=config.base, tower="transformer"))
    collection = load_collection(rows_file, "test", config)
    own, _ = evaluate(Retriever(heavy, collection.documents, collection.document_ids), collection)
    assert found["transformer_ndcg@10"] == pytest.approx(own.metrics["ndcg@10"], abs=2e-3)
    assert found["retention"] == pytest.approx(found["ndcg@10"] / found["transformer_ndcg@10"], abs=2e-4)
    assert f"retention    {found['retention']:.1%} of the transformer on both sides, dense, " in told.err
    heavy.save(tmp_path / "heavy")
    assert main(["evaluate", str(tmp_path / "heavy"), rows_file, "--json"]) == 0
    assert "retention" not in capsys.readouterr().out


def test_both_sides_align_to_a_teacher(tiny_encoder: str, rows_file: str) -> None:
    config = TrainConfig(
        base=tiny_encoder, dataset=(rows_file,), loss="align", teacher=tiny_encoder, rows="encoded", epochs=3,
        batch_size=32, learning_rate=1e-3, wandb=False,
    )  # fmt: skip
    data = prepare(config)
    result = train(config, data)
    assert data.frozen is None
    assert result.history[-1]["avg_train_loss"] < 0.8 * result.history[0]["avg_train_loss"]


def test_queries_alone_teach_both_sides_beside_pairs(tiny_encoder: str, rows_file: str, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("how tall is a tower\nwhat is stone made of\n")
    config = TrainConfig(
        base=tiny_encoder, dataset=(rows_file, str(tmp_path / "queries.txt")), loss="align", teacher=tiny_encoder,
        rows="encoded", epochs=1, batch_size=32, learning_rate=1e-3, wandb=False,
    )  # fmt: skip
    data = prepare(config)
    examples, vectors = data.examples, data.teacher_vectors
    assert vectors is not None
    assert {"how tall is a tower", "what is stone made of"} <= set(examples.queries)
    answers = np.zeros(len(examples.passages), np.bool_)
    answers[examples.positives.ids] = True
    assert 0 < answers.sum() < len(answers)
    assert np.array_equal(vectors.passages.any(axis=1), answers)  # no passage that is never learned from is encoded
    taken = np.concatenate(list(make_sampler(config, data, 1).rest_of_epoch(Progress(untrained=0.0), None)))  # type: ignore[arg-type]
    alone = [examples.queries.index(text) for text in ("how tall is a tower", "what is stone made of")]
    assert sorted(taken[taken[:, 1] < 0, 0]) == sorted(alone)
    assert len(taken) == len(examples.positives.ids) + 2
    train(config, data)


def test_documents_align_to_frozen_queries(config: TrainConfig) -> None:
    config = dataclasses.replace(
        config, query_tower="transformer", document_tower="average", freeze="queries", epochs=2
    )
    before, data = TwoTowersModel(config.model_config()), prepare(config)
    result = train(config, data)
    assert result.history[-1]["avg_train_loss"] < 0.9 * result.history[0]["avg_train_loss"]
    own = before.encode_queries(data.examples.passages)
    after = result.model.encode_documents(data.examples.passages)
    assert float((after * own).sum(1).mean()) > float(
        (before.encode_documents(data.examples.passages) * own).sum(1).mean()
    )


def test_the_share_that_is_kept_stands_in_every_report(
    config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from freemvmt.cli import main

    words = f"--base {config.base} --dataset {config.dataset[0]} --query-tower average --document-tower transformer"
    command = f"train {words} --loss align --epochs 1 --no-wandb --json --output {tmp_path / 'model'}"
    assert main(command.split()) == 0
    output = capsys.readouterr()
    scores = json.loads(output.out)["scores"]
    assert scores["retention"] == pytest.approx(scores["ndcg@10"] / scores["frozen_ndcg@10"], rel=1e-2)
    assert f"{scores['retention']:.1%} of {scores['frozen_ndcg@10']:.4f}" in output.err
    assert f"{scores['frozen_ndcg@10']:.4f} (kept: {scores['retention']:.1%})" in (
        tmp_path / "model" / "README.md"
    ).read_text(encoding="utf-8")


def test_queries_alone_teach(config: TrainConfig, rows_file: str, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("how tall is a tower\n\nwhat is stone made of\nhow tall is a  TOWER\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": 1, "query": "who builds walls"}\n{"query": " "}\n')
    names = (rows_file, str(tmp_path / "queries.txt"), str(tmp_path / "queries.jsonl"))
    more = dataclasses.replace(config, dataset=names)
    alone, both = load(config), load(more)
    assert both.train.queries[len(alone.train.queries) :] == [
        "how tall is a tower", "what is stone made of", "who builds walls"
    ]  # fmt: skip
    assert both.train.positives.lengths[-3:].tolist() == [0, 0, 0]
    data = prepare(more)
    result = train(dataclasses.replace(more, epochs=1, batch_size=2), data)
    assert result.steps == -(-len(both.train.queries) // 2)


def test_spans_stand_in_for_queries(config: TrainConfig, tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(40)]
    rows = [{"id": f"d{n}", "text": " ".join(words[n : n + 20])} for n in range(20)]
    rows.append({"id": "short", "text": "too short"})
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spans = dataclasses.replace(config, dataset=(str(corpus),), spans=4, validation_fraction=0.25)
    data = load(spans)
    passages = [row["text"] for row in rows[:20]]
    for examples in (data.train,):
        assert 20 < len(examples.queries) <= 60
        for query, numbers in zip(examples.queries, examples.positives, strict=True):
            assert 3 <= len(query.split()) <= 16
            assert all(query in examples.passages[number] for number in numbers)
    assert set(data.validation.documents) == set(passages)
    assert load(spans).train.queries == data.train.queries
    assert load(dataclasses.replace(spans, seed=1)).train.queries != data.train.queries
    train(dataclasses.replace(spans, epochs=1, batch_size=8), prepare(spans))


def test_the_vectors_of_two_kinds_are_cut_together(tiny_encoder: str, tmp_path: Path) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS[:2])))
    assert build(model, str(corpus), tmp_path / "bundle", dim=2)["dim"] == 2  # two documents span two dimensions
    with contextlib.closing(Retriever.load(tmp_path / "bundle")) as served:
        assert served.model is not None
        assert served.model.encode_queries(TEXTS[:1]).shape == (1, 2)
        cosines = model.encode_documents(TEXTS[:1]) @ model.encode_documents(TEXTS[:2]).T
        hits = served.similar("d0", k=1)
        assert hits[0].score == pytest.approx(float(cosines[0, 1]), abs=1e-4)
        served.add([Document("new", "towers of glass")])
        assert "new" in {hit.id for hit in served.search("towers", k=3, method="dense")}


@pytest.mark.parametrize("query", ["average", "recurrent"])
def test_a_search_never_loads_the_heavy_tower(
    query: str, tiny_encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(base=tiny_encoder, query_tower=query, document_tower="transformer", hidden=8)  # type: ignore[arg-type]
    model = TwoTowersModel(config)
    with torch.no_grad():
        for name, weight in model.tensors().items():
            if name.startswith("query.") and "scale" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS[:2])))
    build(model, str(corpus), tmp_path / "bundle")
    loads: list[object] = []
    load = TwoTowersModel.load
    with contextlib.closing(Retriever.load(tmp_path / "bundle")) as served:
        monkeypatch.setattr(TwoTowersModel, "load", lambda *names: loads.append(names) or load(*names))
        hits = served.search("a tower of stone", k=2)
        assert served.model is not None
        assert np.allclose(served.model.encode_queries(["a tower"]), model.encode_queries(["a tower"]), atol=1e-6)
        assert served.model.hybrid_weight == model.hybrid_weight == 0.6
        explained = served.explain("a tower", hits[0].id)
        assert sum(piece.share for piece in explained.query) == pytest.approx(explained.score, abs=1e-5)
        assert not loads
        served.add([Document("new", "a tower of glass")])
        assert len(loads) == 1
        assert "new" in {hit.id for hit in served.search("a tower of glass", k=3, method="bm25")}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": "documents"}, "share one tower"),
        ({"query_tower": "average", "document_tower": "transformer", "shared_table": True}, "--shared-table"),
        ({"query_tower": "average", "document_tower": "transformer", "dim": 8}, "index --dim"),
        ({"separate_towers": True, "shared_table": True, "freeze": "documents"}, "--freeze and --shared-table"),
        ({"streaming": True, "query_tower": "average", "document_tower": "transformer"}, "--streaming"),
        ({"streaming": True, "spans": 2}, "--spans"),
        ({"spans": -1}, "--spans is -1"),
        ({"tower": "transformer", "rows": "encoded"}, "reads its own table"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainConfig(**changes)  # type: ignore[arg-type]


def test_what_the_data_does_not_allow_is_one_line(config: TrainConfig, rows_file: str, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("how tall is a tower\n")
    (tmp_path / "empty.txt").write_text("\n")
    alone = (str(tmp_path / "queries.txt"),)
    for changes, message in (
        ({"dataset": alone}, "nothing to validate on"),
        ({"dataset": (str(tmp_path / "empty.txt"), rows_file)}, "is empty"),
        ({"dataset": (rows_file, *alone), "loss": "infonce"}, "has queries alone"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(dataclasses.replace(config, **changes))  # type: ignore[arg-type]


def test_vectors_of_two_sizes_are_refused(tiny_encoder: str, tmp_path: Path) -> None:
    model = TwoTowersModel(ModelConfig(base=tiny_encoder, query_tower="average", document_tower="transformer"))
    model.save(tmp_path / "model")
    tensors = model.parts.tensors | {"query.table": model.parts.tensors["query.table"][:, :12]}
    with pytest.raises(UserError, match="have 12 numbers, the document tower's 24, so they cannot be compared"):
        TwoTowersModel.of(dataclasses.replace(model.parts, tensors=tensors))
