"""How fast does text become vectors? `list[str]` in, one vector a passage out: ours, sentence-transformers, model2vec.

    uv run --group bench python benchmarks/encode.py --data FOLDER [--model MODEL]

All three hold the same token table and the same tokenizer, and their vectors are compared (on texts that hold no
unknown token, which model2vec leaves out). sentence-transformers gets the best of four batch sizes, model2vec the best
of two, in one process or in its own pool of them; all are tried first, on all passages.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import record
import torch
from machine import read_bandwidth, row_bandwidth
from model2vec import StaticModel
from numpy.typing import NDArray
from passages import passages
from rounds import in_turns, summary
from serving_peer import static_model
from tokenizers import Tokenizer

from freemvmt.model import TwoTowersModel

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
BATCHES = (32, 256, 1024, 4096)
COMPARED = 10_000  # passages whose vectors are compared
LEAST_COSINE = 0.9999
PROTOCOL = (
    "the same distinct real passages from list[str] to float32 vectors of length 1; a round gives each its turn, after "
    "a warm-up round; ratios within a round, their median"
)


def ways(model: TwoTowersModel, texts: Sequence[str]) -> dict[str, Encode]:
    """Ours and the peers, each with the settings that are best for it."""

    def ours(some: Sequence[str]) -> NDArray[np.float32]:
        return np.asarray(model.encode_documents(some))

    peer = static_model(model)
    tokenizer = Tokenizer.from_str(model.tokenizer.definition)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    table = model.document_tower.table.detach().numpy()
    other = StaticModel(table, tokenizer, normalize=True)

    def transformers(some: Sequence[str], size: int) -> NDArray[np.float32]:
        return np.asarray(peer.encode(list(some), batch_size=size, show_progress_bar=False, convert_to_numpy=True))

    def model2vec(some: Sequence[str], size: int, pool: bool) -> NDArray[np.float32]:
        length = model.config.max_length
        return other.encode(list(some), max_length=length, batch_size=size, use_multiprocessing=pool)

    return {
        "two-towers": ours,
        "sentence-transformers": _best([partial(transformers, size=size) for size in BATCHES], texts),
        "model2vec": _best(
            [partial(model2vec, size=size, pool=pool) for size in (1024, 4096) for pool in (False, True)], texts
        ),
    }


def _best(candidates: Sequence[Encode], texts: Sequence[str]) -> Encode:
    times = in_turns({str(number): partial(way, texts) for number, way in enumerate(candidates)}, rounds=1, warm_up=0)
    best = min(times, key=lambda name: times[name][0])
    sys.stdout.write(f"chosen: {candidates[int(best)]}\n")
    return candidates[int(best)]


def main() -> int:
    """Measure, print, write results/encode.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--model", default="untrained")
    arguments.add_argument("--passages", type=int, default=100_000)
    arguments.add_argument("--rounds", type=int, default=5)
    given = arguments.parse_args()
    record.require_quiet()
    model = TwoTowersModel.load(given.model)
    texts, _ = passages(given.data, given.passages)
    tried = ways(model, texts)
    unknown = Tokenizer.from_str(model.tokenizer.definition).token_to_id("[UNK]")
    known = [text for text in texts[:COMPARED] if unknown not in model.tokenizer.encode([text]).ids]
    vectors = {name: way(known) for name, way in tried.items()}
    cosines = {
        name: float((vectors["two-towers"] * found).sum(1).min())
        for name, found in vectors.items()
        if name != "two-towers"
    }
    if min(cosines.values()) < LEAST_COSINE:
        raise SystemExit(f"these are not the same vectors: {cosines}")
    tokens = model.tokenizer.encode(texts)
    stages = {
        "tokenise": lambda: model.tokenizer.encode(texts),
        "average and scale": lambda: model.encode_document_tokens(tokens),
    }
    times = in_turns({name: partial(way, texts) for name, way in tried.items()} | stages, given.rounds)
    found = summary({name: times[name] for name in tried}, "two-towers")
    for figure in found.values():
        figure["passages_per_second"] = round(len(texts) / figure["seconds"])
    table = model.document_tower.table
    moved = len(tokens.ids) * table.shape[1] * table.element_size()
    roof = {
        "tokens": len(tokens.ids),
        "bytes_of_rows": moved,
        "rows_read_gb_per_second": round(moved / float(np.median(times["average and scale"])) / 1e9, 1),
        "memory_read_gb_per_second": round(read_bandwidth() / 1e9, 1),
        "cached_rows_gb_per_second": round(row_bandwidth(torch.float32, 1000, table.shape[1]) / 1e9, 1),
    }
    figures = {
        "passages": len(texts),
        "texts_with_an_unknown_token_in_10000": COMPARED - len(known),
        "words_per_passage": round(sum(len(text.split()) for text in texts) / len(texts), 1),
        "least_cosine": {name: round(cosine, 7) for name, cosine in cosines.items()},
        "ways": found,
        "stages": {name: {"seconds": round(float(np.median(times[name])), 4)} for name in stages},
        "roofline": roof,
    }
    for name, figure in found.items():
        sys.stdout.write(f"{name:<22} {figure}\n")
    sys.stdout.write(f"{figures['stages']}\n{roof}\n")
    path = record.write("encode", PROTOCOL, [0], figures, ("sentence-transformers", "model2vec"))
    sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
