"""The question this project was made for: what does a recurrent tower bring over the average of the same rows?

    uv run python benchmarks/recurrent.py --data FOLDER --work FOLDER [--only NAME …]

Each recipe below is trained with three seeds and measured on six collections, dense and in hybrid with BM25; each is
tested against the average of the same recipe and against BM25, query by query. WORK keeps the trained models, so that a
run that was stopped goes on. FOLDER holds the data sets and BEIR folders by name.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from quality import mean_of

from freemvmt.config import HYBRID_WEIGHT, TrainConfig, changed_flags
from freemvmt.console import Console
from freemvmt.evaluation import Result, compare, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever
from freemvmt.text.sources import load_collection
from freemvmt.training import TrainingData, prepare, save, train

SEEDS = [0, 1, 2]
SHOWN = ("scifact", "squad-a", "cranfield", "cisi")
COLLECTIONS = (*SHOWN, "msmarco-dl19", "msmarco-dev-a")
COMMON: dict[str, Any] = {
    "loss": "infonce", "batch_size": 2048, "epochs": 2, "rows": "distilled", "distill": 0.5, "train_length": 64,
}  # fmt: skip
RECURRENT: dict[str, Any] = {"tower": "recurrent", "cell": "gru", "hidden": 96}
RECIPES: dict[str, dict[str, Any]] = {
    "average": COMMON,
    "recurrent": COMMON | RECURRENT,
}
PROTOCOL = (
    "NDCG@10 over the full corpus of each collection; best epoch by validation; mean of the seeds; paired two-sided "
    "randomisation test, 10,000 permutations, on each query's mean over the seeds; hybrid weight {weight}; trained on "
    "{trained}"
)


def main() -> int:
    """Train what is missing, measure, print, write results/recurrent.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--train", nargs="+", default=["qa", "msmarco"])
    arguments.add_argument("--only", nargs="+", choices=list(RECIPES), default=list(RECIPES))
    given = arguments.parse_args()
    base = TrainConfig(dataset=tuple(str(given.data / name) for name in given.train), wandb=False)
    models, training = {}, {}
    for name in given.only:
        models[name], training[name] = _trained(name, dataclasses.replace(base, **RECIPES[name]), given.work)
    found: dict[str, Any] = {}
    for collection in COLLECTIONS:
        found[collection] = _measured(given.data / collection, models, base)
    means = {
        f"{name}, {method}": round(float(np.mean([found[one][name][method]["ndcg@10"] for one in SHOWN])), 4)
        for name in models
        for method in ("dense", "hybrid")
    }
    sys.stdout.write(f"mean over {', '.join(SHOWN)}: {means}\n")
    figures = {"trained_on": given.train, "recipes": training, "collections": found, "mean_of_shown_ndcg@10": means}
    protocol = PROTOCOL.format(weight=HYBRID_WEIGHT, trained=" and ".join(given.train))
    sys.stdout.write(f"wrote {record.write('recurrent', protocol, SEEDS, figures)}\n")
    return 0


def _trained(name: str, config: TrainConfig, work: Path) -> tuple[list[TwoTowersModel], dict[str, Any]]:
    """The models of all seeds, and what is known of their training."""
    console = Console(stderr=True)
    data: TrainingData | None = None
    models = []
    for seed in SEEDS:
        folder, seeded = work / f"{name}-{seed}", dataclasses.replace(config, seed=seed)
        if not folder.exists():
            data = data or prepare(seeded, console)
            started = time.perf_counter()
            result = train(seeded, data, console=console)
            save(seeded, data, result, folder)
            (folder / "seconds").write_text(f"{time.perf_counter() - started:.1f}")
        models.append(TwoTowersModel.load(folder))
        if models[-1].record["config"] != _plain(seeded):
            raise SystemExit(f"{folder} was trained with other flags; remove it")
    flags = " ".join(changed_flags(dataclasses.replace(config, dataset=("auto",), wandb=True)))
    return models, {
        "flags": flags,
        "parameters": sum(weight.numel() for weight in models[0].parameters()),
        "seconds": [float((work / f"{name}-{seed}" / "seconds").read_text()) for seed in SEEDS],
        "val_ndcg@10": [round(model.record["scores"]["ndcg@10"], 4) for model in models],
        "best_epoch": [model.record["scores"]["best_epoch"] for model in models],
    }


def _plain(config: TrainConfig) -> dict[str, Any]:
    return dataclasses.asdict(config) | {"dataset": list(config.dataset)}


def _measured(folder: Path, models: dict[str, list[TwoTowersModel]], config: TrainConfig) -> dict[str, Any]:
    collection = load_collection(str(folder), "test", config)
    lexical = Retriever(None, collection.documents, collection.document_ids)
    bm25, _ = evaluate(lexical, collection, "bm25")
    found: dict[str, Any] = {
        "protocol": bm25.protocol, "queries": bm25.queries, "bm25": {"ndcg@10": round(bm25.metrics["ndcg@10"], 4)},
    }  # fmt: skip
    averages: dict[str, Result] = {}
    for name, seeds in models.items():
        found[name] = {}
        results: dict[str, list[Result]] = {"dense": [], "hybrid": []}
        for model in seeds:
            retriever = Retriever(model, collection.documents, collection.document_ids)
            retriever.store.bm25 = lexical.store.bm25  # the same documents: index them once
            for method, kept in results.items():
                kept.append(evaluate(retriever, collection, method)[0])
        for method, kept in results.items():
            mean = mean_of(kept)
            averages.setdefault(method, mean)  # the first recipe is the average
            low, high = mean.intervals["ndcg@10"]
            found[name][method] = {
                "ndcg@10": round(mean.metrics["ndcg@10"], 4),
                "interval_95_over_queries": [round(low, 4), round(high, 4)],
                "seeds": [round(result.metrics["ndcg@10"], 4) for result in kept],
                "minus_bm25": _tested(mean, bm25),
                "minus_average": _tested(mean, averages[method]),
            }
            sys.stdout.write(f"{collection.name:<15} {name:<12} {method:<7} {found[name][method]}\n")
            sys.stdout.flush()
    return found


def _tested(one: Result, other: Result) -> dict[str, float]:
    test = compare(one, other)
    return {"difference": round(test.difference, 4), "p_value": round(test.p_value, 4)}


if __name__ == "__main__":
    sys.exit(main())
