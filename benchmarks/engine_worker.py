"""One engine in a process of its own: what `engines.py` asks it to do, and the writer that is killed.

python benchmarks/engine_worker.py ENGINE FOLDER        adds batches and says which are acknowledged, until killed
"""

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from engine_adapters import parts_of
from engine_types import Engine, Filter, Found, Rows
from numpy.typing import NDArray

from freemvmt.config import HYBRID_WEIGHT
from freemvmt.search.index.fusion import fuse
from freemvmt.search.index.ranking import Ranking

BATCH = 50  # documents that the writer which is killed adds at once
TIE = 1e-4  # scores that are this near (relative to the larger) may change places


class Worker:
    """An engine, the corpus it holds and the queries it is asked. Every method is one part of the protocol."""

    def __init__(self, name: str, corpus: Path, folder: Path) -> None:
        self.name, self.folder = name, folder
        described = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
        vectors = np.load(corpus / "vectors.npy")
        texts, words = described["texts"], np.array(described["words"])
        self.rows = Rows(np.arange(len(texts)), texts, described["sources"], words, vectors)
        self.queries: list[str] = described["queries"]
        self.query_vectors: NDArray[np.float32] = np.load(corpus / "queries.npy")
        self.engine: Engine

    def build(self) -> dict[str, Any]:
        """Seconds to fill and index, megabytes on disk."""
        started = time.perf_counter()
        self.engine = parts_of(self.name)[0](self.folder, self.rows.vectors.shape[1])
        for start in range(0, len(self.rows.texts), 10_000):
            self.engine.add(self.rows.part(start, start + 10_000))
        self.engine.settle()
        seconds = time.perf_counter() - started
        size = sum(file.stat().st_blocks * 512 for file in self.folder.rglob("*") if file.is_file())
        return {"build_seconds": round(seconds, 1), "disk_mb": round(size / 1e6, 1)}

    def recall(self, budget: float) -> dict[str, Any]:
        """Recall@10 of the dense part, at both depths, against exact search, within ``budget`` seconds a depth."""
        found: dict[str, Any] = {}
        for depth in (100, 1000):
            shares = []
            deadline = time.perf_counter() + budget
            for vector in self.query_vectors:
                exact = self.rows.vectors @ vector
                numbers, _ = self.engine.dense(vector, depth)
                worst = np.partition(exact, -10)[-10]
                shares.append(float((exact[numbers[:10]] >= worst - TIE * abs(worst)).sum()) / 10)
                if time.perf_counter() > deadline:
                    break
            found[f"depth_{depth}"] = {"recall@10": round(float(np.mean(shares)), 4), "queries": len(shares)}
        return found

    def latency(self, measure: str, first: int, count: int, budget: float) -> list[float]:
        """Milliseconds of each query from the ``first`` on: ``count`` of them, or fewer when ``budget`` seconds end."""
        part, _, depth = measure.partition("_")
        ask = {"dense": self._dense, "bm25": self._bm25, "hybrid": self._hybrid}[part]
        taken, deadline = [], time.perf_counter() + budget
        for at in range(first, first + count):
            started = time.perf_counter()
            ask(at % len(self.queries), int(depth))
            taken.append((time.perf_counter() - started) * 1e3)
            if time.perf_counter() > deadline:
                break
        return taken

    def _dense(self, at: int, depth: int) -> Found:
        return self.engine.dense(self.query_vectors[at], depth)

    def _bm25(self, at: int, depth: int) -> Found:
        return self.engine.bm25(self.queries[at], depth)

    def _hybrid(self, at: int, depth: int) -> list[str]:
        dense, lexical = (
            Ranking(numbers[None], scores[None]) for numbers, scores in (self._dense(at, depth), self._bm25(at, depth))
        )
        return self.engine.texts(fuse(dense, lexical, HYBRID_WEIGHT, 10).documents[0].tolist())

    def filters(self, pairs: Sequence[tuple[int, Filter]], budget: float) -> dict[str, Any]:
        """Filtered searches beside brute force over the documents that match; at most ``budget`` seconds a part."""
        sources = np.array(self.rows.sources, np.object_)
        found = {}
        for part in ("dense", "bm25"):
            counts = {"pairs": 0, "wrong": 0, "short": 0, "other": 0}
            deadline = time.perf_counter() + budget
            for at, filter in pairs:
                mask = (self.rows.words >= filter.low) & (self.rows.words < filter.high)
                mask &= sources == filter.source if filter.source else True
                if part == "dense":
                    truth = np.where(mask, self.rows.vectors @ self.query_vectors[at], -np.inf)
                    numbers, _ = self.engine.dense(self.query_vectors[at], 10, filter)
                else:  # the engine's own scores of all that share a word with the query
                    truth = np.full(len(mask), -np.inf, np.float32)
                    every, scores = self.engine.bm25(self.queries[at], len(mask))
                    truth[every] = scores
                    truth[~mask] = -np.inf
                    numbers, _ = self.engine.bm25(self.queries[at], 10, filter)
                matching = min(10, int(np.isfinite(truth).sum()))
                worst = np.partition(truth, -matching)[-matching] if matching else 0.0
                right = mask[numbers]
                counts["pairs"] += 1
                counts["wrong"] += not right.all()
                counts["short"] += len(numbers) < matching
                counts["other"] += not (truth[numbers[right]] >= worst - TIE * abs(worst)).all()
                if time.perf_counter() > deadline:
                    break
            found[part] = counts
        return found

    def live(self, times: int, budget: float) -> dict[str, Any]:
        """Seconds from asking to add a document (or delete it) until both parts find it (or neither)."""
        taken: dict[str, list[float]] = {"add_returned": [], "add_found": [], "delete_returned": [], "delete_gone": []}
        deadline = time.perf_counter() + budget
        for time_ in range(times):
            row = crash_rows(10_000_000 + time_, 1, self.rows.vectors.shape[1])
            number, word = int(row.numbers[0]), row.texts[0].split()[0]
            for action, seen, wanted in (("add", "add_found", True), ("delete", "delete_gone", False)):
                started = time.perf_counter()
                if wanted:
                    self.engine.add(row)
                else:
                    self.engine.delete([number])
                taken[f"{action}_returned"].append(time.perf_counter() - started)
                while True:
                    parts = (self.engine.dense(row.vectors[0], 10), self.engine.bm25(word, 10))
                    if all((number in numbers) == wanted for numbers, _ in parts):
                        break
                    if time.perf_counter() - started > 60:
                        raise TimeoutError(f"{action}: not seen within a minute")
                taken[seen].append(time.perf_counter() - started)
            if time.perf_counter() > deadline:
                break
        return {"times": len(taken["add_found"])} | {
            name: {"p50": round(float(np.median(all_)), 4), "max": round(max(all_), 4)} for name, all_ in taken.items()
        }

    def grow(self, batches: int) -> dict[str, Any]:
        """Add batches of 50 that stay; seconds a batch until ``add`` returns. Then one query, so that all is ready."""
        taken = []
        for batch in range(batches):
            rows = crash_rows(20_000_000 + batch * BATCH, BATCH, self.rows.vectors.shape[1])
            started = time.perf_counter()
            self.engine.add(rows)
            taken.append(time.perf_counter() - started)
        started = time.perf_counter()
        self._hybrid(0, 100)
        return {
            "batches_of_50": batches,
            "batch_p50_seconds": round(float(np.median(taken)), 4),
            "first_query_seconds": round(time.perf_counter() - started, 4),
        }

    def judged(self, texts: list[str], queries: list[str], folder: Path) -> list[Found]:
        """BM25's ten best of each query over a small corpus of its own. Its vectors are noise."""
        vectors = np.random.default_rng(0).normal(size=(len(texts), 16)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        engine = parts_of(self.name)[0](folder, 16)
        engine.add(Rows(np.arange(len(texts)), texts, ["x"] * len(texts), np.zeros(len(texts), np.int64), vectors))
        engine.settle()
        return [engine.bm25(query, 10) for query in queries]


def serve(pipe: Connection, name: str, corpus: Path, folder: Path) -> None:
    """Answer (method, arguments) with (True, result) or (False, what went wrong), until the pipe ends."""
    worker = Worker(name, corpus, folder)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(worker, method)(**arguments)))
        except Exception:  # noqa: BLE001  whatever an engine raises is a result of it
            pipe.send((False, traceback.format_exc()))


def crash_rows(first: int, count: int, dim: int) -> Rows:
    """Documents whose text, metadata and vector follow from their number."""
    numbers = np.arange(first, first + count)
    vectors = np.stack([np.random.default_rng(number).normal(size=dim) for number in numbers]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"zq{number}zq is the word of document {number} in batch {number // BATCH}" for number in numbers]
    return Rows(numbers, texts, [f"source {number % 7}" for number in numbers], numbers % 100, vectors)


def write_until_killed(name: str, folder: Path, say: Callable[[dict[str, Any]], None], dim: int = 384) -> None:
    """Open what is there, say what it holds, and add batches of 50, each said when it is acknowledged."""
    started = time.perf_counter()
    engine = parts_of(name)[0](folder, dim)
    opened = time.perf_counter() - started
    numbers = sorted(engine.numbers())
    wrong = 0
    for start in range(0, len(numbers), 500):
        some = numbers[start : start + 500]
        wrong += sum(text != crash_rows(number, 1, 1).texts[0] for number, text in zip(some, engine.texts(some)))  # noqa: B905
    unfound = 0
    for number in numbers[-1 : -5 * BATCH : -25]:
        row = crash_rows(number, 1, dim)
        parts = (engine.dense(row.vectors[0], 10), engine.bm25(row.texts[0].split()[0], 10))
        unfound += not all(number in found for found, _ in parts)
    say({"opened_seconds": round(opened, 3), "numbers": numbers, "wrong_texts": wrong, "not_found": unfound})
    first = numbers[-1] // BATCH * BATCH + BATCH if numbers else 0
    while True:
        engine.add(crash_rows(first, BATCH, dim))
        say({"acknowledged": first})
        first += BATCH


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    write_until_killed(sys.argv[1], Path(sys.argv[2]), _say)
