"""From the text of 8.84 million passages to a served bundle, and the same of 100,000 and a million.

    uv run python benchmarks/msmarco_scale.py --data FOLDER --model MODEL --work FOLDER [--sizes 100000 1000000]

As many passages as MS MARCO has, of the lengths that its passages have (those of `msmarco-dl19`), made of real
sentences of `qa` and `msmarco-dl19` in a seeded order: what is measured depends on how much text there is, not on what
it says.
`two-towers index` in a process of its own, whose lines say how long each stage took; then single searches, one after
the other, and how many of the true 100 nearest are found. WORK takes three times the size of the text; what is in it is
made anew.
"""

import argparse
import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
from passages import passages, questions
from scaling import COMMAND, run

from freemvmt.data.readers.beir import beir

SEED, BLOCK, QUERIES, EXACT_QUERIES = 0, 50_000, 300, 64
SIZES = (100_000, 1_000_000, 8_841_823)
STAGES = ("reading", "encoding", "vectors", "words", "saved")
SEARCH = """
import json, os, resource, sys, time
import numpy as np
from freemvmt.search.retriever import Retriever

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20

asked, exact = json.loads(sys.argv[2]), int(sys.argv[3])
started = time.perf_counter()
retriever = Retriever.load(sys.argv[1], verify=False)
found = {"open_s": round(time.perf_counter() - started, 2)}
for method in ("dense", "bm25", "hybrid"):
    for query in asked[:50]:
        retriever.search(query, method=method)
    times = []
    for query in asked:
        started = time.perf_counter()
        retriever.search(query, method=method)
        times.append(1000 * (time.perf_counter() - started))
    found[method] = {f"p{share}_ms": round(float(np.percentile(times, share)), 2) for share in (50, 95, 99)}
found["mib"] = round(resident())
model, view = retriever.model, retriever.store.view()
vectors = model.encode_queries(asked[:exact])
true = view.dense(vectors, 100, view.among({}))  # with a filter it is always a scan of all
near = view.dense(vectors, 100, None)
hits = [(score >= best[-1] - 1e-6).sum() for score, best in zip(near.scores, true.scores)]
found["recall@100"] = round(float(np.mean(hits)) / 100, 4)
print(json.dumps(found))
"""


def main() -> int:
    """Write the corpora, index, search, print, write results/msmarco_scale.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--work", type=Path, required=True)
    arguments.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    arguments.add_argument("--quantize", default="fp16")
    given = arguments.parse_args()
    asked = questions(given.data, QUERIES)
    given.work.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in given.sizes:
        folder = given.work / str(size)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        words = _write(given.data, size, folder / "collection.tsv")
        row: dict[str, Any] = {"passages": size, "words_per_passage": round(words / size, 1)}
        row["text_bytes"] = (folder / "collection.tsv").stat().st_size
        row |= _indexed(given.model, folder, given.quantize)
        _, _, printed = run(
            [sys.executable, "-c", SEARCH, str(folder / "bundle"), json.dumps(asked), str(EXACT_QUERIES)], folder
        )
        row["search"] = json.loads(printed)
        rows.append(row)
        sys.stdout.write(f"{json.dumps(row, indent=1)}\n")
        sys.stdout.flush()
        shutil.rmtree(folder)
    protocol = (
        f"`two-towers index --quantize {given.quantize}` of collection.tsv, start-up included; peak resident memory of "
        f"the process, mapped files too; {QUERIES} searches of each kind one at a time, k = 10, after 50 to warm up; "
        f"recall@100 against a scan of all vectors as they are stored, {EXACT_QUERIES} queries"
    )
    packages = ["faiss-cpu", "tantivy", "pyarrow"]
    sys.stdout.write(f"wrote {record.write('msmarco_scale', protocol, [SEED], {'rows': rows}, packages)}\n")
    return 0


def _write(data: Path, size: int, path: Path) -> int:
    """Write ``size`` passages as MS MARCO's collection.tsv has them; return the number of their words."""
    words = 0
    with path.open("w", encoding="utf-8") as file:
        for number, (text, length) in enumerate(_texts(data, size)):
            file.write(f"{number}\t{text}\n")
            words += length
    return words


def _texts(data: Path, size: int) -> Iterator[tuple[str, int]]:
    """Real sentences in a seeded order, cut to the lengths of real passages; memory holds a block."""
    real = beir(data / "msmarco-dl19", "test").documents
    texts = [*real, *passages(data, 60_000)[0]]
    sentences = [" ".join(one.split()) for text in texts for one in re.split(r"(?<=[.!?])\s+", text) if one.strip()]
    lengths = np.array([one.count(" ") + 1 for one in sentences])
    wanted_of = np.array([len(text.split()) for text in real])
    draw = np.random.default_rng(SEED)
    for start in range(0, size, BLOCK):
        wanted = draw.choice(wanted_of, min(BLOCK, size - start))
        order = draw.integers(0, len(sentences), 2 * int(wanted.sum() / lengths.mean()))
        ends = np.maximum(np.searchsorted(np.cumsum(lengths[order]), np.cumsum(wanted)), np.arange(1, len(wanted) + 1))
        first = 0
        for end in ends.tolist():
            chosen = order[first : max(end, first + 1)]
            yield " ".join(sentences[number] for number in chosen), int(lengths[chosen].sum())
            first = max(end, first + 1)


def _indexed(model: str, folder: Path, quantize: str) -> dict[str, Any]:
    """Seconds of each stage, the peak of memory, and the bundle's size."""
    line = [COMMAND, "index", model, str(folder / "collection.tsv"), "--output", str(folder / "bundle")]
    started = time.perf_counter()
    _, peak, printed = run([*line, "--quantize", quantize], folder)
    seconds = time.perf_counter() - started
    found = dict(re.findall(rf"^({'|'.join(STAGES)}) .*?([\d.,]+) s$", printed, re.MULTILINE))
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    return {
        "seconds": round(seconds, 1),
        "stages_s": {name: float(found[name].replace(",", "")) for name in STAGES if name in found},
        "peak_mib": round(peak),
        "bundle_bytes": sum(file.stat().st_size for file in (folder / "bundle").rglob("*") if file.is_file()),
        "index": manifest["index"],
    }


if __name__ == "__main__":
    sys.exit(main())
