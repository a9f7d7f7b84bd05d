"""The same commands on a GPU: training, encoding and exact search there and on the cores beside it, equally good.

    uv run python benchmarks/gpu.py --data FOLDER [--base MODEL] [--output FILE]
    uv run python benchmarks/gpu.py --measured FILE    # what --output wrote on another machine becomes the result

FOLDER holds Parquet of MS MARCO's columns. Each training starts from the same weights and sees the same batches on both
devices; what a GPU adds up in another order may change the last digits, so the scores are shown side by side.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import record
import torch
from rounds import in_turns

from freemvmt.config import BASE_MODEL, ModelConfig, TrainConfig
from freemvmt.model import TwoTowersModel
from freemvmt.search.index.exact import top_k
from freemvmt.storage import hub
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.training import train

SEED, EPOCHS = 0, 2
DEVICES = ("cpu", "cuda")
VECTORS, QUERIES, DIM = 1_000_000, 1_000, 384
PASSAGES = 20_000  # for a transformer


def main() -> int:
    """Measure, print, write results/gpu.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data")
    arguments.add_argument("--base", default=BASE_MODEL)
    arguments.add_argument("--output", type=Path, help="write the figures there, not to results/")
    arguments.add_argument("--measured", type=Path)
    given = arguments.parse_args()
    record.require_quiet()
    if given.measured:
        return _record(json.loads(given.measured.read_text(encoding="utf-8")))
    if not torch.cuda.is_available():
        sys.exit("there is no GPU here")
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "training": {}, "encoding": {}}
    plain = TrainConfig(dataset=(given.data,), base=given.base, epochs=EPOCHS, seed=SEED, wandb=False)
    data = prepare(plain)
    for tower in ("average", "recurrent"):
        config = replace(plain, tower=tower, loss="infonce")
        runs = {device: _trained(replace(config, device=device), data) for device in DEVICES}
        figures["training"][tower] = {device: figure for device, (figure, _) in runs.items()}
        figures["encoding"][tower] = _encoded({device: model for device, (_, model) in runs.items()}, data)
    light = replace(plain, query_tower="average", document_tower="transformer", loss="align")
    light_data = prepare(light)
    figures["training"]["light query"] = {
        device: _trained(replace(light, device=device), light_data)[0] for device in DEVICES
    }
    figures["documents"] = _documents(data, given.base)
    figures["exact_search"] = _searched()
    sys.stdout.write(f"{json.dumps(figures, indent=1)}\n")
    figures["versions"] = {name: version(name) for name in ("torch", "numpy", "tokenizers", "nanotoken", "two-towers")}
    figures["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    if given.output:
        given.output.write_text(json.dumps(figures), encoding="utf-8")
        return 0
    return _record(figures)


def _record(figures: dict[str, Any]) -> int:
    protocol = (
        f"{EPOCHS} epochs of InfoNCE over the pairs of the folder, full validation corpus; its passages encoded; "
        f"top 100 of {VECTORS:,} random vectors of {DIM} for {QUERIES:,} queries"
    )
    sys.stdout.write(f"wrote {record.write('gpu', protocol, [SEED], figures)}\n")
    return 0


def _trained(config: TrainConfig, data: TrainingData) -> tuple[dict[str, float], TwoTowersModel]:
    if config.device == "cuda":  # what the first call of CUDA costs is no part of a training
        train(replace(config, epochs=1), data)
    torch.cuda.reset_peak_memory_stats()
    result = train(config, data)
    figure = {
        "seconds": round(result.seconds, 2),
        "pairs_a_second": round(result.pairs * EPOCHS / result.seconds),
        "val_ndcg_10": round(result.val_ndcg_10, 4),
        "gpu_memory_mb": round(torch.cuda.max_memory_allocated() / 1e6) if config.device == "cuda" else 0,
    }
    sys.stdout.write(f"{config.tower} {config.device} {figure}\n")
    sys.stdout.flush()
    return figure, result.model


def _encoded(models: dict[str, TwoTowersModel], data: TrainingData) -> dict[str, float]:
    """Passages a second of each device, and the largest difference between their vectors of one model."""
    same = {"cpu": models["cpu"]}
    figures = {}
    tensors = models["cpu"].tensors()
    with torch.no_grad():
        for name, tensor in models["cuda"].tensors().items():
            tensor.copy_(tensors[name])
    for tower in models["cuda"].towers().values():
        tower.measure()
    same["cuda"] = models["cuda"]
    vectors = {}
    for device, model in same.items():
        model.encode_document_tokens(data.passages.slice(0, 10_000))
        torch.cuda.synchronize()
        started = time.perf_counter()
        vectors[device] = model.encode_document_tokens(data.passages).cpu()
        figures[f"{device}_passages_a_second"] = round(len(data.passages) / (time.perf_counter() - started))
    figures["largest_difference"] = float((vectors["cpu"] - vectors["cuda"]).abs().max())
    return figures


def _documents(data: TrainingData, base: str) -> dict[str, Any]:
    """Passages a second that a transformer document tower encodes on the GPU, beside sentence-transformers there."""
    from sentence_transformers import SentenceTransformer

    texts = data.validation.documents[:PASSAGES]
    model = TwoTowersModel(ModelConfig(tower="transformer", base=base)).to("cuda").eval()
    peer = SentenceTransformer(str(hub.encoder_folder(base, "--base")), device="cuda")
    ways: dict[str, Callable[[], Any]] = {
        "two-towers": lambda: model.encode_documents(texts).cpu(),
        "sentence-transformers": lambda: torch.from_numpy(
            peer.encode(texts, batch_size=256, normalize_embeddings=True)
        ),
    }
    vectors = {name: way() for name, way in ways.items()}
    times = in_turns(ways, 5)
    return {
        **{name: round(len(texts) / statistics.median(seconds)) for name, seconds in times.items()},
        "least_cosine": round(float((vectors["two-towers"] * vectors["sentence-transformers"]).sum(1).min()), 5),
    }


def _searched() -> dict[str, float]:
    """Seconds of the exact top 100 on each device, and how many of its ids are the same."""
    generator = torch.Generator().manual_seed(SEED)
    vectors = torch.nn.functional.normalize(torch.randn(VECTORS, DIM, generator=generator))
    queries = torch.nn.functional.normalize(torch.randn(QUERIES, DIM, generator=generator))
    figures, found = {}, {}
    for device in DEVICES:
        there, asked = vectors.to(device), queries.to(device)
        top_k(asked[:10], there, 100)
        torch.cuda.synchronize()
        started = time.perf_counter()
        found[device] = top_k(asked, there, 100)
        figures[f"{device}_seconds"] = round(time.perf_counter() - started, 3)
    first, second = (torch.as_tensor(found[device].documents) for device in DEVICES)
    figures["same_ids"] = float((first == second).float().mean())
    return figures


if __name__ == "__main__":
    sys.exit(main())
