"""How long does an epoch of `qa` take, from Parquet to a saved model, and what memory? Beside sentence-transformers.

    uv run --group bench python benchmarks/training.py --data FOLDER

Each training is a process of its own (training_run.py): ours with the default loss and with InfoNCE, and the peer's
trainer with MultipleNegativesRankingLoss, which is InfoNCE one way. Same pairs, table and batch. What each saved is
then measured on four collections that none has seen, so that speed is not bought with quality.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
import torch
from machine import matrix_speed, read_bandwidth, row_bandwidth
from quality import mean_of

from freemvmt.config import DataConfig
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import Result, compare, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

HERE = Path(__file__).parent
COLLECTIONS = ("scifact", "squad-a", "cranfield", "cisi")
WAYS = {
    "two-towers, triplet": ["ours", "--loss", "triplet"],
    "two-towers, infonce": ["ours", "--loss", "infonce"],
    "sentence-transformers": ["peer"],
}
OURS = "two-towers, triplet"
PROTOCOL = (
    "one epoch of qa, batch 2,048; wall time from Parquet to the saved model without imports (`whole`: with them), and "
    "the process's largest resident memory; each training in a process of its own, in turns, a round a seed; ratios "
    "within a round, their median. NDCG@10 over each collection's full corpus, mean of the rounds; paired two-sided "
    "randomisation test of ours against the peer, query by query, on the mean over the rounds; documents whole"
)


def run(words: list[str], data: Path, output: Path, seed: int) -> dict[str, float]:
    """One training; what training_run.py says of it."""
    line = [sys.executable, str(HERE / "training_run.py"), *words, "--data", str(data / "qa")]
    line += ["--output", str(output), "--seed", str(seed)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(line)} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    """Measure, print, write results/training.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    record.require_quiet()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        workers = min(range(3), key=lambda count: _peer(given.data, place, count))
        sys.stdout.write(f"the peer is fastest with {workers} loader processes\n")
        ways = {**WAYS, "sentence-transformers": ["peer", "--workers", str(workers)]}
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for seed in range(given.rounds):
            for name, words in ways.items():
                runs[name].append(run(words, given.data, _place(place, name, seed), seed))
                sys.stdout.write(f"round {seed + 1}  {name:<22} {runs[name][-1]}\n")
                sys.stdout.flush()
        figures: dict[str, Any] = {name: _speed(found, runs[OURS], name) for name, found in runs.items()}
        quality = {
            collection: _quality(given.data / collection, place, list(ways), given.rounds) for collection in COLLECTIONS
        }
    for name, figure in figures.items():
        figure["ndcg@10"] = {collection: found[name] for collection, found in quality.items()}
        figure["mean_ndcg@10"] = round(statistics.mean(found[name] for found in quality.values()), 4)
    tests = {collection: found["tests"] for collection, found in quality.items()}
    roofs = {
        "matrix_gflops": round(matrix_speed(torch.float32) / 1e9, 1),
        "memory_read_gb_per_second": round(read_bandwidth() / 1e9, 1),
        "cached_rows_gb_per_second": round(row_bandwidth(torch.float32, 1000, 384) / 1e9, 1),
    }
    found = {"peer_loader_processes": workers, "ways": figures, "against_the_peer": tests, "roofs": roofs}
    for name, figure in figures.items():
        sys.stdout.write(f"{name:<22} {figure}\n")
    sys.stdout.write(f"{tests}\n{roofs}\n")
    packages = ("sentence-transformers", "accelerate", "datasets")
    path = record.write("training", PROTOCOL, list(range(given.rounds)), found, packages)
    sys.stdout.write(f"wrote {path}\n")
    return 0


def _peer(data: Path, place: Path, workers: int) -> float:
    found = run(["peer", "--workers", str(workers)], data, place / f"tried-{workers}", 0)
    sys.stdout.write(f"peer, {workers} loader processes: {found}\n")
    return found["seconds"]


def _place(place: Path, name: str, seed: int) -> Path:
    return place / f"{name.replace(', ', '-')}-{seed}"


def _speed(runs: list[dict[str, float]], ours: list[dict[str, float]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, digits in (("seconds", 2), ("whole", 2), ("peak_mib", 0)):
        found[key] = round(statistics.median(run[key] for run in runs), digits)
        if name != OURS:
            ratios = [theirs[key] / mine[key] for theirs, mine in zip(runs, ours, strict=True)]
            found[f"{key}_ratio"] = round(statistics.median(ratios), 2)
            found[f"{key}_range"] = [round(min(ratios), 2), round(max(ratios), 2)]
    found["rounds"] = [round(run["seconds"], 2) for run in runs]
    return found


def _quality(folder: Path, place: Path, names: list[str], rounds: int) -> dict[str, Any]:
    collection = load_collection(str(folder), "test", DataConfig())
    means: dict[str, Result] = {}
    for name in names:
        results = []
        for seed in range(rounds):
            model = TwoTowersModel.load(_place(place, name, seed))
            retriever = Retriever(model, collection.documents, collection.document_ids, cut=False)
            results.append(evaluate(retriever, collection, "dense")[0])
        means[name] = mean_of(results)
    found: dict[str, Any] = {name: round(result.metrics["ndcg@10"], 4) for name, result in means.items()}
    found["tests"] = {}
    for name in names:
        if name != "sentence-transformers":
            test = compare(means[name], means["sentence-transformers"])
            found["tests"][name] = {"difference": round(test.difference, 4), "p_value": round(test.p_value, 4)}
    return found


if __name__ == "__main__":
    sys.exit(main())
