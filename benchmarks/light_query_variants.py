"""What could make a light query tower better: ideas that were tried on validation queries, most of them in vain.

    uv run python benchmarks/light_query_variants.py --data FOLDER

An average of token vectors learns the transformer's vectors of queries, as in ``--loss align``, and each variant adds
one idea. Three sources of `qa` are left out of training; their validation queries are the slice from another domain.
NDCG@10 of three seeds on the validation of the sources that were trained on, and on that slice. FOLDER holds `qa` and
`msmarco`. The ideas live here and not in the package, until one of them pays.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import record
import torch
from hybrid_weight import queries_of, write_without
from quality import SEEDS
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.config import ModelConfig, TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import Dataset, load, load_collection
from freemvmt.data.ragged import TokenArray
from freemvmt.data.unlabelled import draw_spans
from freemvmt.evaluation.metrics import ndcg_10
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.exact import top_k
from freemvmt.towers.pretrained import idf

LEFT_OUT = ["medquad", "squad-sentences", "cpp-docs"]
RATE, EPOCHS, BATCH = 0.3, 5, 256
Extra = Callable[[Tensor, Tensor, np.ndarray], Tensor]  # (vectors, targets, numbers of the texts) -> a further loss


@dataclass
class Texts:
    """Texts to learn from: their tokens, and the transformer's vectors of them, (n, dim)."""

    tokens: TokenArray
    targets: Tensor

    def __len__(self) -> int:
        return len(self.tokens)


class RowAdagrad:
    """Adagrad with one sum a row, as the token tables of the package have it."""

    def __init__(self, table: nn.Parameter, rate: float) -> None:
        self.table, self.rate, self.sums = table, rate, torch.zeros(len(table))

    def step(self, scale: float) -> None:
        """Move the rows that have a gradient; ``scale`` falls from 1 to 0 over the training."""
        assert self.table.grad is not None
        gradient = self.table.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        self.sums[rows] += values.square().mean(1)
        self.table.data[rows] -= self.rate * scale * values / (self.sums[rows].sqrt().unsqueeze(1) + 1e-10)
        self.table.grad = None


class Tower(nn.Module):
    """The average of a text's rows; as a variant asks, with rows for its pairs of tokens, or a second layer on top."""

    def __init__(self, rows: Tensor, pairs: np.ndarray | None = None, hidden: int = 0) -> None:
        super().__init__()
        self.table, self.pairs = nn.Parameter(rows.clone()), pairs
        self.pair_table = None if pairs is None else nn.Parameter(torch.zeros(len(pairs) + 1, rows.shape[1]))
        self.layer = None
        if hidden:
            self.layer = nn.Sequential(nn.Linear(rows.shape[1], hidden), nn.GELU(), nn.Linear(hidden, rows.shape[1]))
            nn.init.zeros_(self.layer[2].weight)
            nn.init.zeros_(self.layer[2].bias)

    def forward(self, tokens: TokenArray) -> Tensor:
        """(texts, dim), each of length 1."""
        sums = _sums(self.table, tokens.ids.astype(np.int64), tokens.offsets)
        if self.pair_table is not None and self.pairs is not None:
            places = np.searchsorted(self.pairs, _pairs(tokens.ids)).clip(max=len(self.pairs) - 1)
            known = self.pairs[places] == _pairs(tokens.ids)
            places = np.where(known, places, len(self.pairs))
            sums = sums + _sums(self.pair_table, np.append(places, len(self.pairs)), tokens.offsets)
        if self.layer is not None:
            sums = F.normalize(sums) * 20
            sums = sums + self.layer(sums)
        return F.normalize(sums)


def _sums(table: Tensor, rows: np.ndarray, offsets: np.ndarray) -> Tensor:
    starts = torch.from_numpy(offsets[:-1].astype(np.int64))
    return F.embedding_bag(torch.from_numpy(rows), table, starts, mode="sum", sparse=True)


def _pairs(ids: np.ndarray) -> np.ndarray:
    """A number for each token and the next; over the end of a text too, which is rare and harmless."""
    return ids[:-1].astype(np.int64) * 2**17 + ids[1:]


def main() -> int:
    """Train each variant with three seeds, print, write results/light_query_variants.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    trial = Trial(arguments.parse_args().data)
    found: dict[str, dict[str, Any]] = {}
    for name, variant in trial.variants().items():
        started = time.perf_counter()
        scores = np.array([trial.scores(variant(seed)) for seed in SEEDS])
        found[name] = {
            "same_sources": [round(score, 4) for score in scores[:, 0]],
            "other_domain": [round(score, 4) for score in scores[:, 1]],
            "mean": [round(score, 4) for score in scores.mean(0)],
            "seconds": round((time.perf_counter() - started) / len(SEEDS), 1),
        }
        sys.stdout.write(f"{name:<50} {found[name]}\n")
        sys.stdout.flush()
    figures = {"left_out": LEFT_OUT, "transformer": [round(score, 4) for score in trial.ceiling], "variants": found}
    protocol = (
        "an average query tower over the transformer's documents; NDCG@10 of validation queries over the validation "
        "passages, those of the sources that were trained on and of msmarco, and those of the sources left out"
    )
    sys.stdout.write(f"wrote {record.write('light_query_variants', protocol, SEEDS, figures)}\n")
    return 0


def without_some_sources(data: Path) -> Dataset:
    """`qa` without the sources that are left out, and `msmarco`."""
    with tempfile.TemporaryDirectory() as place:
        write_without(LEFT_OUT, data / "qa", Path(place))
        return load(TrainConfig(dataset=(place, str(data / "msmarco"))))


class Trial:
    """The data of all variants, read and encoded once, and the ways to train on it."""

    def __init__(self, data: Path) -> None:
        self.model = TwoTowersModel(ModelConfig(query_tower="average", document_tower="transformer"))
        dataset = without_some_sources(data)
        rows = pq.read_table(data / "qa" / "validation-00000-of-00001.parquet")
        everything = load_collection(str(data / "qa"), "validation", TrainConfig())
        sources = sorted(set(rows["query_type"].to_pylist()) - set(LEFT_OUT))
        msmarco = load_collection(str(data / "msmarco"), "validation", TrainConfig())
        self.collections = [
            [queries_of(everything, rows, sources), msmarco], [queries_of(everything, rows, LEFT_OUT)],
        ]  # fmt: skip
        self.ceiling = [
            float(np.mean([self._ndcg(self.encoded(one.queries).targets, one) for one in group]))
            for group in self.collections
        ]
        self.examples = dataset.train
        self.queries = self.encoded(self.examples.queries)
        weights = idf(self.model.tokenizer.encode(self.examples.passages), self.model.tokenizer.vocabulary_size)
        self.rows = self.model.tensors()["query.table"].clone()
        self.rows[: len(weights)] *= torch.from_numpy(weights).unsqueeze(1) * TrainConfig.idf_scale

    def encoded(self, texts: Sequence[str]) -> Texts:
        """The tokens of ``texts``, and the transformer's vectors of them."""
        return Texts(self.model.tokenizer.encode(texts), self.model.cached_vectors("document", texts))

    def variants(self) -> dict[str, Callable[[int], Tower]]:
        """A way to train for each idea, by seed."""
        with_label, answer_of, passages = self._answers()
        spans = [span for span, _ in draw_spans([self.examples.passages[row] for row in passages], 2, 0)]
        drawn = self.encoded(spans)
        both = self.encoded([*self.examples.queries, *spans])
        answers = self.model.cached_vectors("document", [self.examples.passages[row] for row in passages])
        best, similarities = self._best(answers, 200)
        ids = self.queries.tokens.ids
        pairs, counts = np.unique(_pairs(ids), return_counts=True)

        def top_200(vectors: Tensor, _: Tensor, numbers: np.ndarray) -> Tensor:
            own = torch.einsum("qd,qpd->qp", vectors, answers[best[numbers]])
            return 0.1 * _divergence(own / 0.05, similarities[numbers] / 0.05)

        def labels(vectors: Tensor, _: Tensor, numbers: np.ndarray) -> Tensor:
            scores = vectors @ answers[answer_of[numbers]].T / 0.05
            return 0.1 * F.cross_entropy(scores, torch.arange(len(vectors)))

        def after(first: Callable[[int], Tower], **changes: Any) -> Callable[[int], Tower]:
            return lambda seed: self.train(seed, tower=first(seed), **changes)

        def base(seed: int) -> Tower:
            return self.train(seed)

        return {
            "alignment": base,
            "batches of 128": lambda seed: self.train(seed, batch=128),
            "10 epochs": lambda seed: self.train(seed, epochs=10),
            "KL of the batch's queries among themselves": lambda seed: self.train(seed, extra=_among_queries),
            "KL over the transformer's 200 best passages": lambda seed: self.train(seed, extra=top_200),
            "labels after alignment": after(base, extra=labels, only=with_label, rate=0.01, epochs=2),
            "spans of passages alone": lambda seed: self.train(seed, drawn),
            "spans of passages first": after(lambda seed: self.train(seed, drawn, epochs=3)),
            "spans of passages beside the queries": lambda seed: self.train(seed, both),
            "rows for pairs of tokens (5 times or more)": lambda seed: self.train(
                seed, tower=Tower(self.rows, pairs[counts >= 5])
            ),
            "a second layer (768, residual)": lambda seed: self.train(seed, tower=Tower(self.rows, hidden=768)),
        }

    def train(
        self, seed: int, texts: Texts | None = None, tower: Tower | None = None, extra: Extra | None = None,
        only: np.ndarray | None = None, rate: float = RATE, epochs: int = EPOCHS, batch: int = BATCH,
    ) -> Tower:  # fmt: skip
        """Align ``tower``, by default a new average, to the vectors of ``texts``, by default the training queries."""
        torch.manual_seed(seed)
        texts, tower, generator = texts or self.queries, tower or Tower(self.rows), np.random.default_rng(seed)
        optimizers = [RowAdagrad(table, rate) for table in (tower.table, tower.pair_table) if table is not None]
        dense = None if tower.layer is None else torch.optim.AdamW(tower.layer.parameters(), 3e-3, weight_decay=0)
        numbers = np.arange(len(texts)) if only is None else only
        steps, step = epochs * (len(numbers) // batch), 0
        for _ in range(epochs):
            order = generator.permutation(numbers)
            for start in range(0, len(order) - batch + 1, batch):
                rows = order[start : start + batch]
                vectors, targets = tower(texts.tokens.take(rows)), texts.targets[torch.from_numpy(rows)]
                loss = 1 - (vectors * targets).sum(1).mean()
                (loss if extra is None else loss + extra(vectors, targets, rows)).backward()
                scale, step = 1 - step / steps, step + 1
                for optimizer in optimizers:
                    optimizer.step(scale)
                if dense is not None:
                    dense.param_groups[0]["lr"] = 3e-3 * scale
                    dense.step()
                    dense.zero_grad()
        return tower

    @torch.no_grad()
    def scores(self, tower: Tower) -> list[float]:
        """NDCG@10 on the sources that were trained on, and on those that were left out."""
        return [
            float(np.mean([self._ndcg(tower(self.model.tokenizer.encode(one.queries)), one) for one in group]))
            for group in self.collections
        ]

    def _ndcg(self, queries: Tensor, collection: Collection) -> float:
        documents = self.model.cached_vectors("document", collection.documents)
        return ndcg_10(top_k(queries, documents, 10 + bool(collection.self_matches)), collection)

    def _answers(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(queries with an answer among some passages; the place of each query's answer there; these passages)."""
        first = self.examples.positives.ids[self.examples.positives.offsets[:-1]]  # the first answer of each query
        passages = np.unique(first[some_queries(len(first))])
        place = np.full(len(self.examples.passages), -1)
        place[passages] = np.arange(len(passages))
        return np.flatnonzero(place[first] >= 0), place[first], passages

    def _best(self, passages: Tensor, count: int) -> tuple[Tensor, Tensor]:
        blocks = [(block @ passages.T).topk(count) for block in self.queries.targets.split(2048)]
        return torch.cat([block.indices for block in blocks]), torch.cat([block.values for block in blocks])


def some_queries(count: int) -> np.ndarray:
    """The numbers of 10,000 queries of `msmarco`, which stand last among ``count``, and of 16,000 others."""
    generator, first = np.random.default_rng(0), count - 10_992
    of_msmarco = generator.choice(np.arange(first, count), 10_000, replace=False)
    return np.concatenate([of_msmarco, generator.choice(np.arange(first), 16_000, replace=False)])


def _among_queries(vectors: Tensor, targets: Tensor, _: np.ndarray) -> Tensor:
    """How far each query's similarities to the others of the batch are from what the transformer says."""
    own = torch.eye(len(vectors), dtype=torch.bool)
    return _divergence(
        (vectors @ vectors.T / 0.1).masked_fill(own, -1e4), (targets @ targets.T / 0.1).masked_fill(own, -1e4)
    )


def _divergence(scores: Tensor, targets: Tensor) -> Tensor:
    return F.kl_div(F.log_softmax(scores, 1), F.softmax(targets, 1), reduction="batchmean")


if __name__ == "__main__":
    sys.exit(main())
