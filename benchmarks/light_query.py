"""A light query tower over documents that a transformer encodes once: what does it keep of the transformer?

    uv run python benchmarks/light_query.py --data FOLDER --work FOLDER

Each recipe (as in runs/light_query.sh) is trained with three seeds, without a label, and measured on six collections,
dense and in hybrid with BM25. Each is tested against BM25, against the transformer on both sides and, query by query,
against the average. WORK keeps the trained models, and the cache the transformer's vectors, so a run that was stopped
goes on. FOLDER holds the data sets and BEIR folders by name.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import record
from quality import SEEDS, mean_of, summed_up, tested
from recurrent import COLLECTIONS, PROTOCOL, SHOWN, baseline, trained

from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.evaluation.metrics import Result, evaluate
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Retriever

COMMON: dict[str, Any] = {"query_tower": "average", "document_tower": "transformer", "loss": "align"}
RECIPES: dict[str, dict[str, Any]] = {
    "average": COMMON,
    "recurrent": COMMON | {"query_tower": "recurrent", "pooling": "both"},
}


def main() -> int:
    """Train what is missing, measure, print, write results/light_query.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--train", nargs="+", default=["qa", "msmarco"])
    arguments.add_argument("--collections", nargs="+", default=list(COLLECTIONS))
    arguments.add_argument("--recipes", nargs="+", default=list(RECIPES), help="the average is needed, the others not")
    given = arguments.parse_args()
    base = TrainConfig(dataset=tuple(str(given.data / name) for name in given.train), wandb=False)
    models, training = {}, {}
    for name in given.recipes:
        changes = RECIPES[name]
        models[name], training[name] = trained(name, dataclasses.replace(base, **changes), given.work)
        scores = [model.record["scores"] for model in models[name]]
        training[name]["retention_on_validation"] = [score["retention"] for score in scores]
    transformer = TwoTowersModel(ModelConfig(tower="transformer"))
    found = {name: _measured(given.data / name, models, transformer, base) for name in given.collections}
    means = {
        f"{name}, {method}": round(float(np.mean([found[one][name][method]["ndcg@10"] for one in SHOWN])), 4)
        for name in ("transformer", *models)
        for method in ("dense", "hybrid")
        if all(one in found for one in SHOWN)
    }
    sys.stdout.write(f"mean over {', '.join(SHOWN)}: {means}\n")
    figures = {"trained_on": given.train, "recipes": training, "collections": found, "mean_of_shown_ndcg@10": means}
    weights = {name: seeds[0].hybrid_weight for name, seeds in models.items()}
    protocol = PROTOCOL.format(weight=weights, trained=f"the queries of {' and '.join(given.train)} alone")
    sys.stdout.write(f"wrote {record.write('light_query', protocol, SEEDS, figures)}\n")
    return 0


def _measured(
    folder: Path, models: dict[str, list[TwoTowersModel]], transformer: TwoTowersModel, config: TrainConfig
) -> dict[str, Any]:
    collection, lexical, bm25, found = baseline(folder, config)
    means: dict[tuple[str, str], Result] = {}
    for name, seeds in {"transformer": [transformer], **models}.items():
        found[name] = {}
        for method, results in searched(seeds, collection, lexical).items():
            mean = means[name, method] = mean_of(results)
            found[name][method] = summed_up(results) | {"minus_bm25": tested(mean, bm25)}
            if name != "transformer":
                alone = means["transformer", "dense"]
                found[name][method] |= {
                    "minus_transformer": tested(mean, alone),
                    "minus_average": tested(mean, means["average", method]),
                    "retention": round(mean.metrics["ndcg@10"] / alone.metrics["ndcg@10"], 4),
                }
            sys.stdout.write(f"{collection.name:<15} {name:<12} {method:<7} {found[name][method]}\n")
            sys.stdout.flush()
    return found


def searched(models: list[TwoTowersModel], collection: Collection, lexical: Retriever) -> dict[str, list[Result]]:
    """The results of each seed's model over the first tokens of each document, dense and in hybrid with BM25.

    A transformer's vectors of the documents are cached; the models share it.
    """
    results: dict[str, list[Result]] = {"dense": [], "hybrid": []}
    is_slow = models[0].config.kind_of("document") == "transformer"
    vectors = models[0].cached_vectors("document", collection.documents) if is_slow else None
    for model in models:
        retriever = Retriever(model, collection.documents, collection.document_ids, vectors=vectors, cut=False)
        retriever.store.bm25 = lexical.store.bm25  # the same documents: index them once
        for method, of_method in results.items():
            of_method.append(evaluate(retriever, collection, method, weight=model.hybrid_weight)[0])
    return results


if __name__ == "__main__":
    sys.exit(main())
