"""Cells, directions, poolings and depth of a recurrent tower, tuned alike, beside the average tuned alike and as long.

    uv run python benchmarks/recurrent_variants.py --data FOLDER --work FOLDER

On the first rows of `qa`, so that all of it takes an hour: each variant is trained with the same few random settings of
the rates, the temperature and the dropout; the best on `qa` validation is trained with three seeds and measured on `qa`
test and on six collections. WORK keeps what was done, so that a run that was stopped goes on.
"""

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import record
from quality import SEEDS, mean_of, summed_up, tested
from recurrent import COLLECTIONS

from freemvmt.config import TrainConfig
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import Result, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.retriever import Retriever
from freemvmt.storage.files import atomic_file
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.result import save
from freemvmt.training import train

ROWS, TRIALS = 20_000, 4
COMMON: dict[str, Any] = {
    "loss": "infonce", "batch_size": 1024, "epochs": 2, "rows": "distilled", "train_length": 64, "wandb": False,
}  # fmt: skip
GRU: dict[str, Any] = {"tower": "recurrent", "cell": "gru", "hidden": 64}
VARIANTS: dict[str, dict[str, Any]] = {
    "average": {},
    "average, ten times as long": {"epochs": 20},
    "GRU": GRU,
    "GRU, one way": GRU | {"bidirectional": False, "hidden": 128},
    "GRU, two layers": GRU | {"layers": 2},
    "LSTM": GRU | {"cell": "lstm"},
    "GRU, mean of states added": GRU | {"pooling": "mean"},
    "GRU, mean of states alone": GRU | {"pooling": "mean", "residual": False},
}


def main() -> int:
    """Tune, train, measure, print, write results/recurrent_variants.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    given = arguments.parse_args()
    base = TrainConfig(dataset=(str(given.data / "qa"),), max_samples=ROWS, **COMMON)
    data = prepare(base, Console(stderr=True))
    tuned = {name: _tuned(name, base, data, given.work / "variants.json") for name in VARIANTS}
    models: dict[str, list[TwoTowersModel]] = {}
    for name, found in tuned.items():
        config = dataclasses.replace(base, **VARIANTS[name], **found["settings"])
        models[name], found["cpu_seconds"] = [], []
        for seed in SEEDS:
            model, seconds = _trained(dataclasses.replace(config, seed=seed), data, given.work / f"{name}-{seed}")
            models[name].append(model)
            found["cpu_seconds"].append(seconds)
        found["parameters"] = sum(weight.numel() for weight in models[name][0].parameters())
        sys.stdout.write(f"{name:<28} {found}\n")
        sys.stdout.flush()
    whole = dataclasses.replace(base, max_samples=None)
    measured = {name: _measured(given.data / name, models, whole) for name in ("qa", *COLLECTIONS)}
    protocol = (
        f"first {ROWS:,} rows of qa; {TRIALS} random settings of learning rate, recurrence rate, temperature, dropout, "
        "the same for all, best by qa validation; three seeds; NDCG@10 over the full corpus; paired two-sided "
        "randomisation test against the average; documents whole"
    )
    figures = {"variants": tuned, "collections": measured}
    sys.stdout.write(f"wrote {record.write('recurrent_variants', protocol, SEEDS, figures, ['optuna'])}\n")
    return 0


def _trained(config: TrainConfig, data: TrainingData, folder: Path) -> tuple[TwoTowersModel, float]:
    """The model of ``config``, kept in ``folder``, and the seconds of CPU that its training took."""
    if not folder.exists():
        started = time.process_time()
        result = train(config, data)
        seconds = time.process_time() - started
        save(config, data, result, folder)
        (folder / "seconds").write_text(f"{seconds:.1f}")
    return TwoTowersModel.load(folder), float((folder / "seconds").read_text())


def _tuned(name: str, base: TrainConfig, data: TrainingData, kept: Path) -> dict[str, Any]:
    """The settings that were best on validation, and the score of each trial."""
    known: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    if name not in known:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))

        def trial(one: optuna.Trial) -> float:
            settings = {
                "learning_rate": one.suggest_float("learning_rate", 1.5e-4, 1e-3, log=True),
                "recurrence_rate_factor": one.suggest_float("recurrence_rate_factor", 1.0, 10.0, log=True),
                "temperature": one.suggest_float("temperature", 0.03, 0.08),
                "dropout": one.suggest_float("dropout", 0.0, 0.2),
            }
            score = train(dataclasses.replace(base, **VARIANTS[name], **settings), data).val_ndcg_10
            sys.stdout.write(f"{name:<28} trial {one.number}: {score:.4f} {settings}\n")
            sys.stdout.flush()
            return score

        study.optimize(trial, n_trials=TRIALS)
        known[name] = {
            "settings": study.best_params,
            "val_ndcg@10": [round(one.value or 0.0, 4) for one in study.trials],
        }
        with atomic_file(kept) as part:
            part.write_text(json.dumps(known, indent=1))
    found: dict[str, Any] = known[name]
    return found


def _measured(path: Path, models: dict[str, list[TwoTowersModel]], config: TrainConfig) -> dict[str, Any]:
    collection = load_collection(str(path), "test", config)
    found: dict[str, Any] = {}
    average: Result | None = None
    for name, seeds in models.items():
        results = [
            evaluate(Retriever(model, collection.documents, collection.document_ids, cut=False), collection, "dense")[0]
            for model in seeds
        ]
        mean = mean_of(results)
        average = average or mean
        found[name] = summed_up(results) | {"minus_average": tested(mean, average)}
    sys.stdout.write(f"{collection.name:<18} { ({name: one['ndcg@10'] for name, one in found.items()}) }\n")
    sys.stdout.flush()
    return {
        "protocol": f"full corpus, {len(collection.documents)} documents",
        "queries": len(collection.queries),
        **found,
    }


if __name__ == "__main__":
    sys.exit(main())
