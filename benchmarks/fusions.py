"""Ways to join the rankings of a recurrent tower and of BM25, on what neither was fitted to.

    uv run python benchmarks/fusions.py --data FOLDER --work FOLDER

WORK holds the models that `recurrent.py` trained. What a fusion has to choose (a weight, or how a weight depends on the
query) is chosen on sources of `qa` that a model of the same recipe was trained without; choosing on sources that were
trained on favours the dense side too much. Reciprocal rank fusion (Cormack et al. 2009) has nothing to choose.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import record
import torch
from hybrid_weight import WEIGHTS, write_without
from numpy.typing import NDArray
from quality import SEEDS, mean_of, summed_up, tested
from recurrent import COLLECTIONS, RECIPES

from freemvmt.config import HYBRID_WEIGHT, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import Result, measure
from freemvmt.evaluation.runs import to_run
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.console import Console
from freemvmt.search.index.fusion import DEPTH, fuse
from freemvmt.search.index.ranking import Ranking
from freemvmt.search.retriever import Retriever
from freemvmt.trainer.dataset import prepare
from freemvmt.trainer.result import save
from freemvmt.training import train

LEFT_OUT = ["squad-sentences", "medical-forums", "scifact"]
_QUERIES = 1500  # of each source that was left out
_RRF = 60  # Cormack's constant
_CANDIDATES = 100  # of each side that the learned weight is fitted to
_SHARPNESS = 20.0  # of the softmax over candidates


def main() -> int:
    """Train without some sources, choose on them, measure, write results/fusions.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    given = arguments.parse_args()
    base = TrainConfig(wandb=False, validation_queries=_QUERIES)
    with tempfile.TemporaryDirectory() as place:
        model = _without(
            LEFT_OUT, given.data, given.work, dataclasses.replace(base, **RECIPES["recurrent"]), Path(place)
        )
        unseen = [_source(name, given.data, Path(place), base) for name in LEFT_OUT]
    pairs = [(collection, *_rankings(model, collection)) for collection in unseen]
    by_weight = {
        f"{weight:g}": float(np.mean([_score(fuse(dense, words, weight, DEPTH), one) for one, dense, words in pairs]))
        for weight in WEIGHTS
    }
    best = max(WEIGHTS, key=lambda weight: by_weight[f"{weight:g}"])
    learned = LearnedWeight(pairs)
    sys.stdout.write(f"left out: { ({name: round(score, 4) for name, score in by_weight.items()}) }, best {best:g}\n")

    found: dict[str, Any] = {}
    for name in COLLECTIONS:
        collection = load_collection(str(given.data / name), "test", base)
        results: dict[str, list[Result]] = {}
        for seed in SEEDS:
            dense, words = _rankings(TwoTowersModel.load(given.work / f"recurrent-{seed}"), collection)
            fused = {
                f"weight {HYBRID_WEIGHT:g}": fuse(dense, words, HYBRID_WEIGHT, DEPTH),
                f"weight {best:g}": fuse(dense, words, best, DEPTH),
                "learned weight": fuse(dense, words, learned(collection, dense, words), DEPTH),
                "reciprocal ranks": _by_ranks(dense, words),
            }
            for way, ranking in fused.items():
                results.setdefault(way, []).append(measure(to_run(ranking, collection), collection, way))
        bm25 = measure(to_run(words, collection), collection, "bm25")
        found[name] = {way: summed_up(one) | {"minus_bm25": tested(mean_of(one), bm25)} for way, one in results.items()}
        sys.stdout.write(f"{name:<15} { ({way: one['ndcg@10'] for way, one in found[name].items()}) }\n")
        sys.stdout.flush()
    protocol = (
        f"weights chosen on {', '.join(LEFT_OUT)} of qa, {_QUERIES} queries each at most, by a model trained without "
        f"them; NDCG@10 over the full corpus of each collection, mean of the seeds, {DEPTH} candidates of each side; "
        "documents whole"
    )
    figures = {
        "left_out_ndcg@10": {name: round(score, 4) for name, score in by_weight.items()},
        "best_weight": best,
        "learned": dict(zip(LearnedWeight.FEATURES, learned.parameters, strict=True)),
        "collections": found,
    }
    sys.stdout.write(f"wrote {record.write('fusions', protocol, SEEDS, figures)}\n")
    return 0


class LearnedWeight:
    """The dense side's share as a logistic function of what the two rankings of a query look like; fitted so that
    answers stand out among the candidates of both, by the softmax of the fused scores."""

    FEATURES = ("constant", "log words", "cosine of the first", "its lead over the tenth", "BM25 of the first a word",
                "its lead over the tenth, relative", "documents in both first tens")  # fmt: skip

    def __init__(self, pairs: list[tuple[Collection, Ranking, Ranking]]) -> None:
        raw = np.concatenate([self._features(*pair) for pair in pairs])
        self._mean, self._spread = raw.mean(0), raw.std(0).clip(min=1e-6)
        features = torch.from_numpy(self._scaled(raw)).double()
        blocks = [_candidates(*pair) for pair in pairs]
        dense, words, answers = (torch.from_numpy(np.concatenate(part)) for part in zip(*blocks, strict=True))
        useful = answers.any(1)  # queries with an answer among the candidates
        features, dense, words, answers = features[useful], dense[useful], words[useful], answers[useful]
        weights = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            share = torch.sigmoid(features @ weights).unsqueeze(1)
            logits = _SHARPNESS * (share * dense + (1 - share) * words)
            value = (logits.logsumexp(1) - logits.masked_fill(~answers, -torch.inf).logsumexp(1)).mean()
            value = value + 1e-3 * weights[1:].square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        self.parameters = [round(float(weight), 4) for weight in weights.detach()]

    def __call__(self, collection: Collection, dense: Ranking, words: Ranking) -> NDArray[np.float32]:
        """The weights, (queries, 1)."""
        logits = self._scaled(self._features(collection, dense, words)) @ np.array(self.parameters)
        shares: NDArray[np.float32] = (1 / (1 + np.exp(-logits))).astype(np.float32)[:, None]
        return shares

    def _scaled(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled = (raw - self._mean) / self._spread
        scaled[:, 0] = 1
        return scaled

    @staticmethod
    def _features(collection: Collection, dense: Ranking, words: Ranking) -> NDArray[np.float64]:
        lengths = np.array([len(query.split()) for query in collection.queries])
        first = words.scores[:, 0]
        both = [
            len(set(one[:10].tolist()) & set(other[:10].tolist()) - {-1})
            for one, other in zip(dense.documents, words.documents, strict=True)
        ]
        return np.stack(
            [
                np.ones(len(lengths)), np.log(lengths), dense.scores[:, 0], dense.scores[:, 0] - dense.scores[:, 9],
                first / lengths, 1 - words.scores[:, 9] / np.maximum(first, 1e-6), both,
            ],
            axis=1,
        )  # fmt: skip


def _candidates(collection: Collection, dense: Ranking, words: Ranking) -> tuple[NDArray[Any], ...]:
    """(scaled dense score, scaled BM25 score, whether it answers) of the first documents of both sides."""
    numbers = {id: number for number, id in enumerate(collection.document_ids)}
    sides = [fuse(dense, words, weight, DEPTH) for weight in (1.0, 0.0)]  # what `fuse` makes of each
    width = 2 * _CANDIDATES
    found = np.zeros((len(collection.queries), width)), np.zeros((len(collection.queries), width))
    answers = np.zeros((len(collection.queries), width), np.bool_)
    for row, query in enumerate(collection.query_ids):
        scores = [dict(zip(s.documents[row].tolist(), s.scores[row].tolist(), strict=True)) for s in sides]
        first = [*dense.documents[row, :_CANDIDATES].tolist(), *words.documents[row, :_CANDIDATES].tolist()]
        right = {numbers[id] for id, grade in collection.qrels[query].items() if grade > 0}
        for column, document in enumerate(dict.fromkeys(one for one in first if one >= 0)):
            for side in (0, 1):
                found[side][row, column] = scores[side].get(document, 0.0)
            answers[row, column] = document in right
    return *found, answers


def _by_ranks(dense: Ranking, words: Ranking) -> Ranking:
    """Reciprocal rank fusion."""
    sides = []
    for side in (dense, words):
        there = side.documents >= 0
        ranks = np.arange(1, side.documents.shape[1] + 1)
        sides.append(Ranking(side.documents, np.where(there, 1 / (_RRF + ranks), 0.0).astype(np.float32)))
    documents = np.full((len(dense.documents), DEPTH), -1, np.int64)
    scores = np.full(documents.shape, -1, np.float32)
    for row in range(len(documents)):
        sums: dict[int, float] = {}
        for side in sides:
            for document, score in zip(side.documents[row].tolist(), side.scores[row].tolist(), strict=True):
                if document >= 0:
                    sums[document] = sums.get(document, 0.0) + score
        best = sorted(sums.items(), key=lambda item: (-item[1], item[0]))[:DEPTH]
        documents[row, : len(best)] = [document for document, _ in best]
        scores[row, : len(best)] = [score for _, score in best]
    return Ranking(documents, scores)


def _rankings(model: TwoTowersModel, collection: Collection) -> tuple[Ranking, Ranking]:
    retriever = Retriever(model, collection.documents, collection.document_ids, cut=False)
    return retriever.rank(collection.queries, DEPTH, "dense"), retriever.rank(collection.queries, DEPTH, "bm25")


def _score(ranking: Ranking, collection: Collection) -> float:
    return measure(to_run(ranking, collection), collection, "fused").metrics["ndcg@10"]


def _without(sources: list[str], data: Path, work: Path, config: TrainConfig, place: Path) -> TwoTowersModel:
    """The model of ``config`` trained on `qa` without ``sources``, and on `msmarco`."""
    folder = work / "left-out"
    if not folder.exists():
        (place / "rest").mkdir()
        write_without(sources, data / "qa", place / "rest")
        trained = dataclasses.replace(config, dataset=(str(place / "rest"), str(data / "msmarco")))
        read = prepare(trained, Console(stderr=True))
        save(trained, read, train(trained, read, console=Console(stderr=True)), folder)
    return TwoTowersModel.load(folder)


def _source(name: str, data: Path, place: Path, config: TrainConfig) -> Collection:
    """The queries of a source over its own passages."""
    rows = pq.read_table(data / "qa" / "train-00000-of-00001.parquet")
    (place / name).mkdir()
    kept = rows.filter(pc.equal(rows["query_type"], name))
    pq.write_table(kept, place / name / "test.parquet")
    collection = load_collection(str(place / name), "test", config)
    ids = collection.query_ids[:_QUERIES]
    return dataclasses.replace(
        collection, query_ids=ids, queries=collection.queries[:_QUERIES], qrels={id: collection.qrels[id] for id in ids}
    )


if __name__ == "__main__":
    sys.exit(main())
