"""Two light towers in the transformer's space: what does a recurrence bring, if it learns the transformer's vectors?

    uv run python benchmarks/aligned.py --data FOLDER --work FOLDER

Each recipe (as in runs/aligned_recurrent.sh) learns the transformer's vectors of all queries of `qa` and `msmarco`, and
of 25,000 passages of theirs; no label is used. Three seeds, six collections, dense and in hybrid with BM25, tested
against BM25 and against the average, query by query. WORK keeps the trained models, so a run that was stopped goes on.
FOLDER holds the data sets and BEIR folders by name.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from light_query_variants import some_queries, without_some_sources
from quality import SEEDS
from recurrent import COLLECTIONS, PROTOCOL, SHOWN, measured, trained

from freemvmt.config import HYBRID_WEIGHT, TrainConfig
from freemvmt.data.load import Dataset, load, load_collection
from freemvmt.data.ragged import IdLists
from freemvmt.model import TwoTowersModel

COMMON: dict[str, Any] = {"loss": "align", "rows": "encoded"}
RECURRENT = COMMON | {"tower": "recurrent", "epochs": 4}
RECIPES: dict[str, dict[str, Any]] = {
    "average": COMMON,
    "recurrent weights": RECURRENT,
    "recurrent": RECURRENT | {"pooling": "both"},
}
SPEED_PASSAGES = 4_000


def main() -> int:
    """Train what is missing, measure, print, write results/aligned.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--recipes", nargs="+", default=list(RECIPES), help="the average first")
    given = arguments.parse_args()
    base = TrainConfig(dataset=tuple(str(given.data / name) for name in ("qa", "msmarco")), wandb=False)
    dataset = with_some_answers(given.data, base)
    models, training = {}, {}
    for name in given.recipes:
        config = dataclasses.replace(base, **RECIPES[name])
        models[name], training[name] = trained(f"aligned {name}", config, given.work, dataset)
        training[name]["passages_per_second"] = speed(models[name][0], given.data)
    found = {name: measured(given.data / name, models, base)[0] for name in COLLECTIONS}
    means = {
        f"{name}, {method}": round(float(np.mean([found[one][name][method]["ndcg@10"] for one in SHOWN])), 4)
        for name in models
        for method in ("dense", "hybrid")
    }
    sys.stdout.write(f"mean over {', '.join(SHOWN)}: {means}\n")
    figures = {"recipes": training, "collections": found, "mean_of_shown_ndcg@10": means}
    texts = f"the queries of qa and msmarco and {len(np.unique(dataset.train.positives.ids)):,} passages, no label"
    protocol = PROTOCOL.format(weight=HYBRID_WEIGHT, trained=texts)
    sys.stdout.write(f"wrote {record.write('aligned', protocol, SEEDS, figures)}\n")
    return 0


def with_some_answers(data: Path, config: TrainConfig) -> Dataset:
    """`qa` and `msmarco`; all queries, but an answer only where it is one of the chosen passages."""
    dataset, part = load(config), without_some_sources(data).train
    first = part.positives.ids[part.positives.offsets[:-1]]
    chosen = {part.passages[number] for number in first[some_queries(len(first))]}
    is_chosen = np.array([passage in chosen for passage in dataset.train.passages])
    queries, passages = dataset.train.pairs()
    count, chosen_pairs = len(dataset.train.queries), is_chosen[passages]
    positives = IdLists.from_pairs(queries[chosen_pairs], passages[chosen_pairs], count)
    none = IdLists(np.empty(0, np.int32), np.zeros(count + 1, np.int64))
    return dataclasses.replace(dataset, train=dataclasses.replace(dataset.train, positives=positives, negatives=none))


def speed(model: TwoTowersModel, data: Path) -> int:
    """Passages of MS MARCO that ``model`` encodes in a second, from text; the best of three."""
    documents = load_collection(str(data / "msmarco-dl19"), "test", TrainConfig()).documents[:SPEED_PASSAGES]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        model.encode_documents(documents)
        seconds.append(time.perf_counter() - started)
    return round(len(documents) / min(seconds))


if __name__ == "__main__":
    sys.exit(main())
