"""Which share of a hybrid the dense side should have on text that training never saw.

    uv run python benchmarks/hybrid_weight.py --data FOLDER

FOLDER is in MS MARCO's schema, with `query_type` naming each row's source. Some sources are left out of training, and
their validation queries are searched among all validation passages; each source is left out once. Choosing on the
validation of sources that were trained on would favour the dense side too much.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import record

from freemvmt.config import TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import evaluate
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import prepare
from freemvmt.training import train

WEIGHTS = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
FOLDS = [
    ["medquad", "fairytale"],
    ["squad-sentences", "cpp-docs", "policyqa"],
    ["debian", "reuters"],
    ["medical-forums", "scifact"],
]


def main() -> int:
    """Train once a fold, measure each weight, write results/hybrid_weight.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    folder = arguments.parse_args().data
    config = TrainConfig(wandb=False)
    validation = pq.read_table(folder / "validation-00000-of-00001.parquet")
    corpus = load_collection(str(folder), "validation", config)
    folds = []
    with tempfile.TemporaryDirectory() as place:
        for left_out in FOLDS:
            write_without(left_out, folder, Path(place))
            data = prepare(dataclasses.replace(config, dataset=(place,)), Console(stderr=True))
            model = train(config, data, console=Console(stderr=True)).model
            unseen = queries_of(corpus, validation, left_out)
            retriever = Retriever(model, unseen.documents, unseen.document_ids)
            scores = {
                f"{weight:g}": evaluate(retriever, unseen, "hybrid", weight=weight)[0].metrics["ndcg@10"]
                for weight in WEIGHTS
            }
            for method in ("bm25", "dense"):
                scores[method] = evaluate(retriever, unseen, method)[0].metrics["ndcg@10"]
            folds.append({"left_out": left_out, "queries": len(unseen.queries), "ndcg@10": scores})
            sys.stdout.write(f"{left_out}: { ({name: round(score, 4) for name, score in scores.items()}) }\n")
            sys.stdout.flush()
    means = {name: float(np.mean([fold["ndcg@10"][name] for fold in folds])) for name in folds[0]["ndcg@10"]}
    best = max(WEIGHTS, key=lambda weight: means[f"{weight:g}"])
    sys.stdout.write(
        f"mean of the folds: { ({name: round(mean, 4) for name, mean in means.items()}) }; best {best:g}\n"
    )
    protocol = f"sources left out of training; their validation queries over {len(corpus.documents)} passages"
    record.write("hybrid_weight", protocol, [config.seed], {"folds": folds, "mean_ndcg@10": means, "best": best})
    return 0


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
