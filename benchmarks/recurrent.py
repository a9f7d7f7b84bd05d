"""The question this project was made for: what does a recurrent tower bring over the average of the same rows?

    uv run python benchmarks/recurrent.py --data FOLDER --work FOLDER

Each recipe below is trained with three seeds and measured on six collections, dense and in hybrid with BM25; each is
tested against the average of the same recipe and against BM25, query by query. WORK keeps the trained models, so that a
run that was stopped goes on. FOLDER holds the data sets and BEIR folders by name.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from quality import SEEDS, mean_of, searched, summed_up, tested
from recurrent_probes import ByLength, word_order

from freemvmt.config import HYBRID_WEIGHT, TrainConfig, changed_flags
from freemvmt.data.collection import Collection
from freemvmt.data.load import Dataset, load_collection
from freemvmt.evaluation.metrics import Result, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.result import save
from freemvmt.training import train

SHOWN = ("scifact", "squad-a", "cranfield", "cisi")
COLLECTIONS = (*SHOWN, "msmarco-dl19", "msmarco-dev-a")
IN_DOMAIN = "qa"  # its test split
COMMON: dict[str, Any] = {
    "loss": "infonce", "batch_size": 2048, "rows": "distilled", "distill": 5.0, "train_length": 64,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {  # as in runs/best_average.sh and runs/best_recurrent.sh
    "average": COMMON | {"epochs": 15},
    "recurrent": COMMON | {"epochs": 8, "tower": "recurrent", "cell": "gru", "hidden": 192},
}
PROTOCOL = (
    "NDCG@10 over the full corpus of each collection; best epoch by validation; mean of the seeds; paired two-sided "
    "randomisation test, 10,000 permutations, on each query's mean over the seeds; hybrid weight {weight}; trained on "
    "{trained}; documents whole"
)


def main() -> int:
    """Train what is missing, measure, print, write results/recurrent.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--train", nargs="+", default=["qa", "msmarco"])
    given = arguments.parse_args()
    base = TrainConfig(dataset=tuple(str(given.data / name) for name in given.train), wandb=False)
    models, training = {}, {}
    for name, changes in RECIPES.items():
        models[name], training[name] = trained(name, dataclasses.replace(base, **changes), given.work)
    lengths = ByLength()
    found = {name: _measured(given.data / name, models, base, lengths) for name in (*COLLECTIONS, IN_DOMAIN)}
    orders = {name: word_order(seeds) for name, seeds in models.items()}
    sys.stdout.write(f"by length: {lengths.table()}\nword order: {orders}\n")
    means = {
        f"{name}, {method}": round(float(np.mean([found[one][name][method]["ndcg@10"] for one in SHOWN])), 4)
        for name in models
        for method in ("dense", "hybrid")
    }
    sys.stdout.write(f"mean over {', '.join(SHOWN)}: {means}\n")
    figures = {
        "trained_on": given.train,
        "recipes": training,
        "collections": found,
        "mean_of_shown_ndcg@10": means,
        "recurrent_minus_average": lengths.table(),
        "word_order": orders,
    }
    protocol = PROTOCOL.format(weight=HYBRID_WEIGHT, trained=" and ".join(given.train))
    sys.stdout.write(f"wrote {record.write('recurrent', protocol, SEEDS, figures)}\n")
    return 0


def trained(
    name: str, config: TrainConfig, work: Path, dataset: Dataset | None = None
) -> tuple[list[TwoTowersModel], dict[str, Any]]:
    """The models of all seeds, and what is known of their training; ``dataset`` in place of that in ``config``."""
    console = Console(stderr=True)
    data: TrainingData | None = None
    models = []
    for seed in SEEDS:
        folder, seeded = work / f"{name}-{seed}", dataclasses.replace(config, seed=seed)
        if not folder.exists():
            data = data or prepare(seeded, console, data=dataset)
            started = time.perf_counter()
            result = train(seeded, data, console=console)
            save(seeded, data, result, folder)
            (folder / "seconds").write_text(f"{time.perf_counter() - started:.1f}")
        models.append(TwoTowersModel.load(folder))
        if models[-1].record["config"] != json.loads(json.dumps(dataclasses.asdict(seeded))):
            raise SystemExit(f"{folder} was trained with other flags; remove it")
    flags = " ".join(changed_flags(dataclasses.replace(config, dataset=("auto",), wandb=True)))
    return models, {
        "flags": flags,
        "parameters": sum(weight.numel() for weight in models[0].parameters()),
        "seconds": [float((work / f"{name}-{seed}" / "seconds").read_text()) for seed in SEEDS],
        "val_ndcg@10": [round(model.record["scores"]["ndcg@10"], 4) for model in models],
        "best_epoch": [model.record["scores"]["best_epoch"] for model in models],
    }


def _measured(
    folder: Path, models: dict[str, list[TwoTowersModel]], config: TrainConfig, lengths: ByLength
) -> dict[str, Any]:
    found, dense = measured(folder, models, config)
    lengths.add(load_collection(str(folder), "test", config), dense["average"], dense["recurrent"])
    return found


def baseline(folder: Path, config: TrainConfig) -> tuple[Collection, Retriever, Result, dict[str, Any]]:
    """The collection in ``folder``, its BM25, what that scores, and the first figures of its entry in a result."""
    collection = load_collection(str(folder), "test", config)
    lexical = Retriever(None, collection.documents, collection.document_ids)
    bm25, _ = evaluate(lexical, collection, "bm25")
    figures = {
        "protocol": bm25.protocol,
        "queries": bm25.queries,
        "bm25": {"ndcg@10": round(bm25.metrics["ndcg@10"], 4)},
    }
    return collection, lexical, bm25, figures


def measured(
    folder: Path, models: dict[str, list[TwoTowersModel]], config: TrainConfig
) -> tuple[dict[str, Any], dict[str, list[Result]]]:
    """Each of ``models``, dense and in hybrid, tested against BM25 and the first of them; and its dense results."""
    collection, lexical, bm25, found = baseline(folder, config)
    averages: dict[str, Result] = {}
    dense: dict[str, list[Result]] = {}
    for name, seeds in models.items():
        found[name] = {}
        for method, results in searched(seeds, collection, lexical).items():
            if method == "dense":
                dense[name] = results
            mean = mean_of(results)
            averages.setdefault(method, mean)  # the first recipe is the average
            found[name][method] = summed_up(results) | {
                "minus_bm25": tested(mean, bm25),
                "minus_average": tested(mean, averages[method]),
            }
            sys.stdout.write(f"{collection.name:<15} {name:<12} {method:<7} {found[name][method]}\n")
            sys.stdout.flush()
    return found, dense


if __name__ == "__main__":
    sys.exit(main())
