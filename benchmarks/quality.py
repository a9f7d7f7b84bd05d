"""How well it finds: train with the defaults, three seeds, and measure on collections that had no part in the choice.

    uv run python benchmarks/quality.py qa --data FOLDER --train qa \\
        --collections scifact squad-a cranfield cisi

FOLDER holds the data sets and BEIR folders by name. BM25 and the untrained towers are measured in the same run; the
trained and the hybrid ranking are tested against BM25, query by query, on the mean of the seeds.
"""

import argparse
import dataclasses
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import record

from freemvmt.config import HYBRID_WEIGHT, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import Result, bounds_of, compare, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import prepare
from freemvmt.training import train

SEEDS = [0, 1, 2]


def main() -> int:
    """Measure, print and write results/quality_NAME.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name")
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--train", nargs="+", required=True)
    arguments.add_argument("--collections", nargs="+", required=True)
    arguments.add_argument("--loss", choices=["triplet", "infonce"], default="triplet")
    asked = arguments.parse_args()

    console = Console(stderr=True)
    paths = tuple(str(asked.data / name) for name in asked.train)
    config = TrainConfig(dataset=paths, loss=asked.loss, wandb=False)
    data = prepare(config, console)
    models, runs = [], []
    for seed in SEEDS:
        started = time.perf_counter()
        result = train(dataclasses.replace(config, seed=seed), data, console=console)
        models.append(result.model)
        runs.append(
            {
                "seed": seed,
                "val_ndcg@10": round(result.val_ndcg_10, 4),
                "untrained_val_ndcg@10": round(result.untrained_ndcg_10, 4),
                "best_epoch": result.best_epoch,
                "pairs": result.pairs,
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
        sys.stdout.write(f"seed {seed}: {runs[-1]}\n")
    # ru_maxrss is in KiB on Linux.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    collections = {name: _measure(asked.data / name, models, config) for name in asked.collections}
    methods = ("untrained", "bm25", "dense", "hybrid")
    means = {
        method: round(float(np.mean([found[method]["ndcg@10"] for found in collections.values()])), 4)
        for method in methods
    }
    sys.stdout.write(f"mean over {', '.join(collections)}: {means}\n")
    figures: dict[str, Any] = {
        "trained_on": asked.train,
        "loss": asked.loss,
        "hybrid_weight": HYBRID_WEIGHT,
        "training": runs,
        "training_peak_memory_gib": round(memory, 2),
        "collections": collections,
        "mean_ndcg@10": means,
    }
    protocol = "default flags; NDCG@10 over the full corpus of each collection, documents whole; mean of the seeds; " \
        "paired two-sided randomisation test, 10,000 permutations, on each query's mean over the seeds"  # fmt: skip
    sys.stdout.write(f"wrote {record.write(f'quality_{asked.name}', protocol, SEEDS, figures)}\n")
    return 0


def _measure(folder: Path, models: list[TwoTowersModel], config: TrainConfig) -> dict[str, Any]:
    collection = load_collection(str(folder), "test", config)
    lexical = Retriever(None, collection.documents, collection.document_ids)
    bm25, _ = evaluate(lexical, collection, "bm25")
    untrained, _ = evaluate(
        Retriever(TwoTowersModel(), collection.documents, collection.document_ids, cut=False), collection, "dense"
    )
    trained = searched(models, collection, lexical)
    found: dict[str, Any] = {"protocol": bm25.protocol, "queries": bm25.queries}
    for name, results in {"untrained": [untrained], "bm25": [bm25], **trained}.items():
        found[name] = summed_up(results)
        if name in trained:
            found[name]["minus_bm25"] = tested(mean_of(results), bm25)
        sys.stdout.write(f"{collection.name:<15} {name:<10} {found[name]}\n")
    return found


def searched(models: list[TwoTowersModel], collection: Collection, lexical: Retriever) -> dict[str, list[Result]]:
    """The results of each seed's model, alone and in hybrid with the BM25 of ``lexical``."""
    results: dict[str, list[Result]] = {"dense": [], "hybrid": []}
    for model in models:
        retriever = Retriever(model, collection.documents, collection.document_ids, cut=False)
        retriever.store.bm25 = lexical.store.bm25  # the same documents: index them once
        for method, kept in results.items():
            kept.append(evaluate(retriever, collection, method)[0])
    return results


def summed_up(results: list[Result]) -> dict[str, Any]:
    """NDCG@10 of the seeds' mean, its interval, and each seed's own."""
    mean = mean_of(results)
    return {
        "ndcg@10": round(mean.metrics["ndcg@10"], 4),
        "interval_95_over_queries": bounds_of(mean.intervals["ndcg@10"], 4),
        "seeds": [round(result.metrics["ndcg@10"], 4) for result in results],
    }


def tested(one: Result, other: Result) -> dict[str, float]:
    """How far ``one`` is above ``other``, and the p-value of the paired test."""
    test = compare(one, other)
    return {"difference": round(test.difference, 4), "p_value": round(test.p_value, 4)}


def mean_of(results: list[Result]) -> Result:
    """The seeds' mean, query by query."""
    values = {name: np.mean([result.per_query[name] for result in results], axis=0) for name in results[0].per_query}
    return dataclasses.replace(results[0], per_query=values)


if __name__ == "__main__":
    sys.exit(main())
