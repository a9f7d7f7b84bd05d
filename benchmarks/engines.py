"""Which embedded engine should keep a live corpus? The four we could use, in one run, by one protocol.

    uv run --group bench python benchmarks/engines.py --data FOLDER --model MODEL

FOLDER holds the data sets by name: the passages of `qa` (train) and `scifact` are the corpus, `qa`'s validation
queries are asked, and the BM25 of each engine is judged on BEIR folders. Each engine lives in a process of its own; a
failure is a result. Latency is taken in rounds in which every engine has its turn, so that noise hits all alike.
"""

import argparse
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
from engine_adapters import lines_of
from engine_types import Filter
from engine_worker import BATCH, serve
from passages import passages, questions

from freemvmt.data.collection import Collection
from freemvmt.data.readers.beir import beir
from freemvmt.evaluation.metrics import measure
from freemvmt.evaluation.runs import to_run
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.bm25 import BM25
from freemvmt.search.index.ranking import Ranking

ENGINES = ["lancedb", "milvus-lite", "faiss+tantivy", "faiss+bm25s+sqlite"]
COLLECTIONS = ["scifact", "squad-a", "cranfield", "cisi"]
MEASURES = ["dense_100", "bm25_100", "hybrid_100", "dense_1000", "bm25_1000", "hybrid_1000"]
PACKAGES = ("lancedb", "pymilvus", "milvus-lite", "faiss-cpu", "tantivy", "pyarrow")
PROTOCOL = (
    "real passages and queries, vectors by our model, one query at a time; hybrid: both parts, our fusion, the text of "
    "the 10 best; FAISS on one thread, the others as they come; rounds in which every engine has a turn, each turn at "
    "most 20 queries and 1.2 s; recall@10 against exact search; filters against brute force over all that match; "
    "kill -9 of a writer at seeded moments ends the process, not the machine"
)
SEED = 0
P99_NEEDS = 100  # queries; of fewer no p99 is given


class Child:
    """An engine's process. After its first failure it is asked nothing more."""

    def __init__(self, name: str, corpus: Path, folder: Path) -> None:
        self.name, self.failed = name, ""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, corpus, folder), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, method: str, seconds: float = 400, **arguments: Any) -> Any:
        """What ``method`` of the worker returns; None when it failed or took longer than ``seconds``."""
        if self.failed:
            return None
        try:
            self.pipe.send((method, arguments))
            if self.pipe.poll(seconds):
                good, answer = self.pipe.recv()
                if good:
                    return answer
                self.failed = f"{method}: {answer}"
            else:
                self.failed = f"{method}: no answer within {seconds:g} s"
        except (EOFError, OSError) as error:
            self.failed = f"{method}: the process ended ({error!r})"
        _say(f"{self.name}: {self.failed}")
        return None

    def close(self) -> None:
        self.pipe.close()
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()


def main() -> int:
    """Measure, print and write results/engines.json."""
    asked = _arguments()
    record.require_quiet()
    chosen = asked.engines.split(",")
    rounds, pairs, kills = (2, 30, 2) if asked.quick else (5, 100, 5)
    collections = [beir(asked.data / name, "test") for name in (COLLECTIONS[:1] if asked.quick else COLLECTIONS)]
    figures: dict[str, Any] = {name: {"adapter_lines": lines_of(name)} for name in chosen}
    with tempfile.TemporaryDirectory() as place:
        corpus = Path(place) / "corpus"
        described = write_corpus(asked.data, asked.model, asked.documents, corpus)
        children = [Child(name, corpus, Path(place) / name) for name in chosen]
        for child in children:
            found = figures[child.name]
            found |= child.ask("build", 600) or {}
            found["recall"] = child.ask("recall", budget=5)
            _say(f"{child.name}: {found}")
        for name, latency in latencies(children, MEASURES, rounds).items():
            figures[name]["latency_ms"] = latency
        filters = filter_pairs(described, pairs)
        for child in children:
            found = figures[child.name]
            found["filters"] = child.ask("filters", pairs=filters, budget=25)
            found["live"] = child.ask("live", times=10, budget=30)
            found["grown"] = child.ask("grow", batches=20)
            _say(f"{child.name}: {found['filters']} {found['live']} {found['grown']}")
        for name, latency in latencies(children, ["hybrid_100", "hybrid_1000"], max(2, rounds // 3)).items():
            figures[name]["latency_ms_grown"] = latency
        bm25s = {collection.name: ndcg(_bm25s(collection), collection) for collection in collections}
        for child in children:
            figures[child.name]["bm25_ndcg@10"] = {
                collection.name: judge(child, collection, Path(place)) for collection in collections
            }
            _say(f"{child.name}: {figures[child.name]['bm25_ndcg@10']}")
            child.close()
            figures[child.name]["failed"] = child.failed
        for name in chosen:
            figures[name]["kill_9"] = killed(name, Path(place) / f"{name} killed", kills)
            _say(f"{name}: {figures[name]['kill_9']}")
    result = {"documents": asked.documents, "quick": asked.quick, **described["about"], "bm25s_ndcg@10": bm25s}
    _say(f"wrote {record.write('engines', PROTOCOL, [SEED], result | {'engines': figures}, PACKAGES)}")
    return 0


def _arguments() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--engines", default=",".join(ENGINES), help="names, with commas between")
    arguments.add_argument("--quick", action="store_true", help="a look at whether all runs; no figures to quote")
    return arguments.parse_args()


def write_corpus(data: Path, model_name: str, size: int, folder: Path) -> dict[str, Any]:
    """``size`` distinct passages in a seeded order with their sources and vectors, and 300 queries, for the workers."""
    texts, sources = passages(data, size)
    queries = questions(data, 300)
    model = TwoTowersModel.load(model_name)
    taken = []
    for query in queries:
        started = time.perf_counter()
        model.encode_queries([query])
        taken.append((time.perf_counter() - started) * 1e3)
    folder.mkdir()
    np.save(folder / "vectors.npy", model.encode_documents(texts).numpy())
    np.save(folder / "queries.npy", model.encode_queries(queries).numpy())
    words = [len(text.split()) for text in texts]
    described = {"texts": texts, "sources": sources, "words": words, "queries": queries}
    (folder / "corpus.json").write_text(json.dumps(described), encoding="utf-8")
    return described | {"about": {"dim": model.dim, "encode_query_p50_ms": round(float(np.median(taken)), 3)}}


def latencies(children: list[Child], measures: list[str], rounds: int) -> dict[str, Any]:
    """Milliseconds by engine and measure; each round asks every engine the same 20 queries, in another order."""
    taken: dict[str, dict[str, list[float]]] = {child.name: {name: [] for name in measures} for child in children}
    rng = random.Random(SEED)
    for child in children:
        for name in measures:
            child.ask("latency", measure=name, first=0, count=5, budget=2)
    for number in range(rounds):
        for name in measures:
            for child in rng.sample(children, len(children)):
                taken[child.name][name] += (
                    child.ask("latency", measure=name, first=number * 20, count=20, budget=1.2) or []
                )
    return {
        child.name: {name: _percentiles(all_) for name, all_ in taken[child.name].items() if all_} for child in children
    }


def _percentiles(taken: list[float]) -> dict[str, Any]:
    found = {f"p{share}": round(float(np.percentile(taken, share)), 3) for share in (50, 95, 99)}
    if len(taken) < P99_NEEDS:
        del found["p99"]
    return found | {"queries": len(taken)}


def filter_pairs(described: dict[str, Any], count: int) -> list[tuple[int, Filter]]:
    """Queries with a source, a range of words, or both by turns; ranges narrow and wide, sources rare and common."""
    rng = random.Random(SEED)
    sources = sorted(set(described["sources"]))
    words = sorted(described["words"])
    pairs = []
    for number in range(count):
        source = rng.choice(sources) if number % 3 else None
        low, high = 0, words[-1] + 1
        if number % 3 != 1:
            low, high = sorted((rng.choice(words), rng.choice(words)))
        pairs.append((rng.randrange(len(described["queries"])), Filter(source, low, high + 1)))
    return pairs


def _bm25s(collection: Collection) -> Ranking:
    return BM25(collection.documents).rank(collection.queries, 10)


def ndcg(ranking: Ranking, collection: Collection) -> float:
    """NDCG@10 over the full corpus of ``collection``."""
    return round(measure(to_run(ranking, collection), collection, "bm25").metrics["ndcg@10"], 4)


def judge(child: Child, collection: Collection, place: Path) -> float | None:
    """NDCG@10 of an engine's BM25; None when it failed."""
    folder = place / f"{child.name} {collection.name}"
    found = child.ask("judged", texts=collection.documents, queries=collection.queries, folder=folder)
    if found is None:
        return None
    ranking = Ranking(np.full((len(found), 10), -1, np.int64), np.zeros((len(found), 10), np.float32))
    for row, (numbers, scores) in enumerate(found):
        ranking.documents[row, : len(numbers)], ranking.scores[row, : len(scores)] = numbers, scores
    return ndcg(ranking, collection)


def killed(name: str, folder: Path, kills: int) -> dict[str, Any]:
    """A writer is killed again and again over one folder: what it had acknowledged, and what is there when reopened."""
    rng = random.Random(SEED)
    found = {"kills": 0, "did_not_open": 0, "missing": 0, "half_written_batches": 0, "wrong_texts": 0, "not_found": 0}
    acknowledged: set[int] = set()
    opened = []
    for kill in range(kills + 1):
        writer = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("engine_worker.py")), name, str(folder)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        line = writer.stdout.readline()
        if line:
            report = json.loads(line)
            opened.append(report["opened_seconds"])
            _compare(report, acknowledged, found)
            if kill < kills:
                time.sleep(rng.uniform(0.02, 0.6))
        writer.kill()
        said, errors = writer.communicate()
        if not line:
            found["did_not_open"] += 1
            return found | {"acknowledged": len(acknowledged), "error": errors.strip().splitlines()[-1:]}
        # A line cut short by the kill was not said.
        whole = [json.loads(message)["acknowledged"] for message in said.split("\n")[:-1]]
        acknowledged |= {first + at for first in whole for at in range(BATCH)} if kill < kills else set()
        found["kills"] += kill < kills
    return found | {"acknowledged": len(acknowledged), "open_seconds_max": max(opened)}


def _compare(report: dict[str, Any], acknowledged: set[int], found: dict[str, Any]) -> None:
    present = set(report["numbers"])
    found["missing"] = max(found["missing"], len(acknowledged - present))
    batches = [sum(batch * BATCH + at in present for at in range(BATCH)) for batch in {n // BATCH for n in present}]
    found["half_written_batches"] = max(found["half_written_batches"], sum(0 < size < BATCH for size in batches))
    found["wrong_texts"] += report["wrong_texts"]
    found["not_found"] += report["not_found"]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
