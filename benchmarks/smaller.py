"""Smaller vectors: NDCG@10 and bytes a passage by dimensions and by what a dimension is kept in.

    uv run python benchmarks/smaller.py --data FOLDER --work FOLDER

WORK holds the models that `recurrent.py` trained. Each is cut as `index --dim` cuts it and searched as `index
--quantize` and `--kind binary` keep it. One more is trained here: the average with `--matryoshka`, cut to its first
numbers.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import record
from quality import SEEDS
from recurrent import RECIPES, SHOWN, trained

from freemvmt.config import TrainConfig
from freemvmt.data.collection import Collection
from freemvmt.data.load import load_collection
from freemvmt.evaluation.metrics import DEPTH, measure
from freemvmt.evaluation.runs import to_run
from freemvmt.model import TwoTowersModel
from freemvmt.search.bundle.build import directions_of
from freemvmt.search.index.dense import IndexKind, Quantization, VectorIndex

DIMS = (384, 256, 128, 64)
KEPT: dict[str, tuple[IndexKind, Quantization]] = {
    "fp32": ("exact", "fp32"),
    "fp16": ("exact", "fp16"),
    "int8": ("exact", "int8"),
    "binary + int8": ("binary", "int8"),
}
PROTOCOL = (
    "NDCG@10 over the full corpus of each collection, mean of {collections} and of the seeds; bytes are those of the "
    "index files over the passages of the largest; {sort}"
)


def main() -> int:
    """Cut, index, search, print, write results/smaller.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--work", type=Path, required=True)
    given = arguments.parse_args()
    base = TrainConfig(dataset=tuple(str(given.data / name) for name in ("qa", "msmarco")), wandb=False)
    trained("average, matryoshka", dataclasses.replace(base, **RECIPES["average"], matryoshka=DIMS[1:]), given.work)
    collections = [load_collection(str(given.data / name), "test", base) for name in SHOWN]
    found: dict[str, Any] = {}
    for name in ("average", "average, matryoshka", "recurrent"):
        models = [TwoTowersModel.load(given.work / f"{name}-{seed}") for seed in SEEDS]
        found[name] = {str(dim): _measured(models, dim, collections) for dim in DIMS}
        for dim in DIMS:
            sys.stdout.write(f"{name:<20} {dim:>4} {found[name][str(dim)]}\n")
            sys.stdout.flush()
    sort = "average and recurrent: the directions in which the corpus is longest; matryoshka: the first numbers"
    protocol = PROTOCOL.format(collections=", ".join(SHOWN), sort=sort)
    sys.stdout.write(f"wrote {record.write('smaller', protocol, SEEDS, {'towers': found}, ['faiss-cpu'])}\n")
    return 0


def _measured(models: list[TwoTowersModel], dim: int, collections: list[Collection]) -> dict[str, Any]:
    scores: dict[str, list[float]] = {name: [] for name in KEPT}
    sizes: dict[str, float] = {}
    for collection in collections:
        for model in models:
            documents = model.encode_documents(collection.documents)
            cut = model
            if dim != model.dim:
                cut = model.cut(directions_of(model, dim, documents.clone))
                documents = cut.encode_documents(collection.documents)
            queries = cut.encode_queries(collection.queries).numpy()
            for name, (kind, stored) in KEPT.items():
                index = VectorIndex.build(kind, stored, dim, [documents.numpy()])
                run = to_run(index.search(queries, DEPTH), collection)
                scores[name].append(measure(run, collection, "dense").metrics["ndcg@10"])
                with tempfile.TemporaryDirectory() as place:
                    index.write(Path(place))
                    size = sum(file.stat().st_size for file in Path(place).iterdir())
                    sizes[name] = min(sizes.get(name, size), size / len(documents))
    return {
        name: {"ndcg@10": round(float(np.mean(values)), 4), "bytes": round(sizes[name], 1)}
        for name, values in scores.items()
    }


if __name__ == "__main__":
    sys.exit(main())
