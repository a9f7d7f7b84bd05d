"""Does a model get better on a corpus by nothing but the corpus's own text?

    uv run python benchmarks/adapt.py --data FOLDER --work FOLDER

Three general models are adapted to each collection by its documents alone, as `train --init` and `retune` do it:
untrained averages and averages of `qa` and `msmarco` by titles, headings and first sentences; an average query tower
over the transformer by these and by spans, aligned. The better one on held-out titles is kept, which a corpus without
titles decides on first sentences. Three seeds, the judged queries of each collection, dense and in hybrid with BM25,
tested against the general model query by query. WORK has the models of light_query.py (`average-0` to `-2`) and keeps
the general ones that are trained here. FOLDER holds the data sets and BEIR folders by name.
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import record
from light_query import searched
from quality import SEEDS, mean_of, summed_up, tested
from recurrent import baseline, trained

from freemvmt.config import TrainConfig
from freemvmt.model import UNTRAINED, TwoTowersModel
from freemvmt.trainer.dataset import prepare
from freemvmt.training import train

COLLECTIONS = ("scifact", "cranfield", "cisi", "msmarco-dl19")
SPANS = 2
GENERAL = ("untrained averages", "averages of qa and msmarco", "average queries, transformer documents")


def main() -> int:
    """Adapt, measure, print, write results/adapt.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--collections", nargs="+", default=list(COLLECTIONS))
    given = arguments.parse_args()
    general = TrainConfig(dataset=tuple(str(given.data / name) for name in ("qa", "msmarco")), wandb=False)
    trained("general", general, given.work)
    patterns = (UNTRAINED, str(given.work / "general-{}"), str(given.work / "average-{}"))
    found = {}
    for name in given.collections:
        collection, lexical, bm25, found[name] = baseline(given.data / name, general)
        for title, pattern in zip(GENERAL, patterns, strict=True):
            starts = [pattern.format(seed) for seed in SEEDS]
            models = [TwoTowersModel.load(start) for start in starts]
            adapted, figures = adapt(given.data / name, starts, models)
            before, after = (searched(some, collection, lexical) for some in (models, adapted))
            for method in before:
                mean = mean_of(before[method])
                figures[method] = {
                    "general": summed_up(before[method]),
                    "adapted": summed_up(after[method]) | {"minus_general": tested(mean_of(after[method]), mean)},
                    "minus_bm25": tested(mean_of(after[method]), bm25),
                }
            found[name][title] = figures
            sys.stdout.write(f"{name:<13} {title:<40} {figures}\n")
            sys.stdout.flush()
    protocol = (
        "judged queries of each collection over its full corpus, each document's first 256 tokens; adapted by the "
        f"text of the corpus alone: titles, first sentences, and for aligned queries {SPANS} spans a section"
    )
    sys.stdout.write(f"wrote {record.write('adapt', protocol, SEEDS, {'collections': found})}\n")
    return 0


def adapt(folder: Path, starts: list[str], models: list[TwoTowersModel]) -> tuple[list[TwoTowersModel], dict[str, Any]]:
    """The models of all seeds after training on the documents in ``folder``, and their scores on what was held out."""
    adapted, figures = [], dict[str, Any]()
    before, after, seconds, data = [], [], [], None
    for seed, start, model in zip(SEEDS, starts, models, strict=True):
        options: dict[str, Any] = {} if start == UNTRAINED else {"init": start, "idf_scale": 0.0}
        if model.config.is_mixed:
            options |= {"loss": "align", "spans": SPANS}
        config = TrainConfig(
            **dataclasses.asdict(model.config), dataset=(str(folder),), seed=seed, wandb=False, **options
        )
        started = time.perf_counter()
        data = prepare(config)
        result = train(config, data)
        seconds.append(round(time.perf_counter() - started, 1))
        before.append(round(result.untrained_ndcg_10, 4))
        after.append(round(result.val_ndcg_10, 4))
        adapted.append(result.model if result.val_ndcg_10 >= result.untrained_ndcg_10 else model)
    assert data is not None
    figures |= {"queries": len(data.queries), "held_out": len(data.validation.queries), "seconds": seconds}
    return adapted, figures | {"held_out_before": before, "held_out_after": after}


if __name__ == "__main__":
    sys.exit(main())
