"""The corpus of the benchmarks on 100,000 documents: distinct real passages in a seeded order.

    uv run python benchmarks/passages.py --data FOLDER --documents 100000 --output corpus.jsonl

FOLDER holds `qa` (MS MARCO's schema, `query_type` naming the source) and `scifact` (a BEIR folder). The file is what
`two-towers index` reads: id, text, and as metadata the source and the number of words.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from freemvmt.data.readers.beir import beir
from freemvmt.search.retriever import Retriever

SEED = 0


def passages(data: Path, size: int) -> tuple[list[str], list[str]]:
    """``size`` distinct passages of `qa`'s training rows and of `scifact`, and the source of each."""
    source_of: dict[str, str] = {}
    rows = pq.read_table(data / "qa" / "train-00000-of-00001.parquet", columns=["passages", "query_type"]).to_pylist()
    for row in rows:
        for text in row["passages"]["passage_text"]:
            source_of.setdefault(text, row["query_type"])
    for text in beir(data / "scifact", "test").documents:
        source_of.setdefault(text, "scifact")
    if len(source_of) < size:
        raise SystemExit(f"only {len(source_of):,} distinct passages there; ask for fewer with --documents")
    every = list(source_of)
    chosen = [every[number] for number in np.random.default_rng(SEED).permutation(len(every))[:size]]
    return chosen, [source_of[text] for text in chosen]


def questions(data: Path, size: int) -> list[str]:
    """``size`` queries of `qa`'s validation rows, in a seeded order."""
    asked: list[str] = pq.read_table(data / "qa" / "validation-00000-of-00001.parquet")["query"].to_pylist()
    return [asked[number] for number in np.random.default_rng(SEED).permutation(len(asked))[:size]]


def training_questions(data: Path, size: int) -> list[str]:
    """``size`` distinct queries of `qa`'s training rows, in a seeded order."""
    asked = list(dict.fromkeys(pq.read_table(data / "qa" / "train-00000-of-00001.parquet")["query"].to_pylist()))
    return [asked[number] for number in np.random.default_rng(SEED).permutation(len(asked))[:size]]


def recombined(data: Path, size: int) -> list[str]:
    """``size`` passages of real sentences in a seeded order, each as long as some real passage.

    For what depends on how much text there is, not on what it says.
    """
    real, _ = passages(data, 100_000)
    sentences = [sentence for text in real for sentence in re.split(r"(?<=[.!?])\s+", text) if sentence]
    lengths = np.array([len(sentence.split()) for sentence in sentences])
    random = np.random.default_rng(SEED)
    wanted = random.choice([len(text.split()) for text in real], size)
    # One endless shuffled stream of sentences, cut at the ends of those that pass each wanted sum of words.
    order = np.concatenate([random.permutation(len(sentences)) for _ in range(1 + wanted.sum() // lengths.sum())])
    ends = np.searchsorted(np.cumsum(lengths[order]), np.cumsum(wanted))
    starts = np.concatenate([[0], ends[:-1]])
    return [
        " ".join(sentences[number] for number in order[start : max(end, start + 1)])
        for start, end in zip(starts, ends, strict=True)
    ]


def indexed(retriever: Retriever) -> tuple[list[str], list[str], NDArray[Any]]:
    """The ids, the texts and the vectors, (documents, dim), of a bundle whose documents are whole."""
    view, size = retriever.store.view(), len(retriever)
    blocks = [range(start, min(start + 8192, size)) for start in range(0, size, 8192)]
    ids = [name for block in blocks for name in view.ids(block)]
    texts = [document.content for block in blocks for document in view.documents(block)]
    return ids, texts, np.concatenate([view.vectors(block) for block in blocks])


def main() -> int:
    """Write the file."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--documents", type=int, default=100_000)
    arguments.add_argument("--output", type=Path, required=True)
    given = arguments.parse_args()
    with given.output.open("w", encoding="utf-8") as file:
        for number, (text, source) in enumerate(zip(*passages(given.data, given.documents), strict=True)):
            document = {"id": str(number), "text": text, "metadata": {"source": source, "words": len(text.split())}}
            file.write(json.dumps(document, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
