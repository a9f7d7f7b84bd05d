"""What a cross-encoder costs for a query: 50 passages, scored by a random model of MiniLM-L6's size.

uv run python benchmarks/rerank.py CORPUS.jsonl QUERIES.jsonl
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record
import torch
import transformers

from freemvmt.config import BASE_MODEL, RERANK_DEPTH
from freemvmt.search.reranker import Reranker
from freemvmt.storage import hub

QUERIES, PASSAGES = 40, 10_000


def texts_of(path: str, most: int) -> list[str]:
    """The first texts of a BEIR file."""
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line)["text"] for line, _ in zip(file, range(most), strict=False)]


def write_model(folder: Path) -> None:
    """A cross-encoder of 6 layers, 384 wide, with random weights: the time does not depend on them."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=1
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes((hub.encoder_folder(BASE_MODEL, "--base") / "tokenizer.json").read_bytes())


def main() -> int:
    """Measure the time and the processor time of a query, print them, write results/rerank.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("corpus")
    arguments.add_argument("queries")
    given = arguments.parse_args()
    record.require_quiet()
    passages, queries = texts_of(given.corpus, PASSAGES), texts_of(given.queries, QUERIES)
    draw = np.random.default_rng(0)
    wall, processor = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder))
        reranker = Reranker(folder)
        for query in queries:
            some = [passages[number] for number in draw.choice(len(passages), RERANK_DEPTH, replace=False)]
            before = time.perf_counter(), time.process_time()
            reranker.scores(query, some)
            wall.append(1000 * (time.perf_counter() - before[0]))
            processor.append(1000 * (time.process_time() - before[1]))
    found = {
        "milliseconds": {"median": round(statistics.median(wall), 1), "range": [round(min(wall)), round(max(wall))]},
        "processor_milliseconds": round(statistics.median(processor), 1),
        "threads": torch.get_num_threads(),
        "words_a_passage": round(statistics.mean(len(text.split()) for text in passages), 1),
    }
    protocol = (
        f"{RERANK_DEPTH} random passages a query, {len(queries)} queries one after the other, median; a random BERT "
        "of MiniLM-L6's size, because the time does not depend on the weights"
    )
    sys.stdout.write(f"{found}\nwrote {record.write('rerank', protocol, [0], found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
