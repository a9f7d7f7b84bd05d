"""Which share of a hybrid the dense side should have on text that training never saw.

    uv run python benchmarks/hybrid_weight.py --data FOLDER FOLDER [--light]

The first FOLDER is in MS MARCO's schema, with `query_type` naming each row's source. Some sources are left out of
training, and their validation queries are searched among all validation passages; each source is left out once, and so
is each further FOLDER. Choosing on the validation of sources that were trained on would favour the dense side too much.
With --light the documents are a transformer's, and the query tower is an average aligned to it; the transformer on both
sides, which learns nothing here, is measured beside it.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import record

from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import prepare
from freemvmt.training import train

WEIGHTS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
FOLDS = [
    ["medquad", "fairytale"],
    ["squad-sentences", "cpp-docs", "policyqa"],
    ["debian", "reuters"],
    ["medical-forums", "scifact"],
]
LIGHT = {"document_tower": "transformer", "loss": "align"}


def main() -> int:
    """Train once a fold, measure each weight, write results/hybrid_weight.json or hybrid_weight_light.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, nargs="+", required=True)
    arguments.add_argument("--light", action="store_true")
    given = arguments.parse_args()
    changes: dict[str, Any] = LIGHT if given.light else {}
    config = TrainConfig(wandb=False, **changes)
    transformer = TwoTowersModel(ModelConfig(tower="transformer")) if given.light else None
    folds = []
    for left_out, datasets, unseen in folds_of(given.data, config):
        config = dataclasses.replace(config, dataset=datasets)
        data = prepare(config, Console(stderr=True))
        models = {"dense": train(config, data, console=Console(stderr=True)).model}
        if transformer is not None:
            models["transformer"] = transformer
        scores = {name: scores_by_weight(model, unseen) for name, model in models.items()}
        folds.append({"left_out": left_out, "queries": len(unseen.queries), "ndcg@10": scores})
        sys.stdout.write(f"{left_out}: {scores}\n")
        sys.stdout.flush()
    means = {
        model: {
            name: round(float(np.mean([fold["ndcg@10"][model][name] for fold in folds])), 4)
            for name in folds[0]["ndcg@10"][model]
        }
        for model in folds[0]["ndcg@10"]
    }
    best = {model: max(WEIGHTS, key=lambda weight: of_model[f"{weight:g}"]) for model, of_model in means.items()}
    sys.stdout.write(f"mean of the folds: {means}; best {best}\n")
    protocol = "sources left out of training; their validation queries over all validation passages of their data set"
    name = f"hybrid_weight{'_light' if given.light else ''}"
    record.write(name, protocol, [config.seed], {"folds": folds, "mean_ndcg@10": means, "best": best})
    return 0


def folds_of(folders: list[Path], config: TrainConfig) -> Iterator[tuple[list[str], tuple[str, ...], Collection]]:
    """(what is left out, the data sets to train on, the queries that were left out over their corpus)."""
    first, *others = folders
    rows = pq.read_table(first / "validation-00000-of-00001.parquet")
    corpus = load_collection(str(first), "validation", config)
    for sources in FOLDS:
        with tempfile.TemporaryDirectory() as place:
            write_without(sources, first, Path(place))
            yield sources, (place, *map(str, others)), queries_of(corpus, rows, sources)
    for other in others:
        rest = tuple(str(folder) for folder in folders if folder != other)
        yield [other.name], rest, load_collection(str(other), "validation", config)


def scores_by_weight(model: TwoTowersModel, collection: Collection) -> dict[str, float]:
    """NDCG@10 of BM25, of the vectors, and of the hybrid with each weight."""
    is_heavy = model.config.kind_of("document") == "transformer"
    vectors = model.cached_vectors("document", collection.documents) if is_heavy else None
    retriever = Retriever(model, collection.documents, collection.document_ids, vectors=vectors)
    scores = {
        f"{weight:g}": evaluate(retriever, collection, "hybrid", weight=weight)[0].metrics["ndcg@10"]
        for weight in WEIGHTS
    }
    for method in ("bm25", "dense"):
        scores[method] = evaluate(retriever, collection, method)[0].metrics["ndcg@10"]
    return {name: round(score, 4) for name, score in scores.items()}


def write_without(sources: list[str], folder: Path, place: Path) -> None:
    """The rows of ``folder`` but for those of ``sources``, and all of its validation rows, into ``place``."""
    rows = pq.read_table(folder / "train-00000-of-00001.parquet")
    inside = pc.is_in(rows["query_type"], value_set=pa.array(sources))
    pq.write_table(rows.filter(pc.invert(inside)), place / "train.parquet")
    pq.write_table(pq.read_table(folder / "validation-00000-of-00001.parquet"), place / "validation.parquet")


def queries_of(corpus: Collection, validation: pa.Table, sources: list[str]) -> Collection:
    """``corpus`` with the queries of ``sources`` alone."""
    rows = validation.select(["query", "query_type"]).to_pylist()
    wanted = {row["query"].strip() for row in rows if row["query_type"] in sources}
    kept = [(id, query) for id, query in zip(corpus.query_ids, corpus.queries, strict=True) if query in wanted]
    return dataclasses.replace(
        corpus,
        query_ids=[id for id, _ in kept],
        queries=[query for _, query in kept],
        qrels={id: corpus.qrels[id] for id, _ in kept},
    )


if __name__ == "__main__":
    sys.exit(main())
