"""One training in a process of its own, from Parquet to a saved model: ours, or sentence-transformers' trainer.

    python benchmarks/training_run.py ours|peer --data FOLDER --output MODEL [--seed N] [--loss L] [--workers N]

Both start from the table of all-MiniLM-L6-v2 and see every pair once, 2,048 at a time. Prints one JSON object: seconds
without and with the imports, and the largest resident memory. What the peer saves is our format, so that one
evaluation serves both.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

BATCH = 2048
# As sentence-transformers' own recipe for static models, but for the rate: its 0.2 is for 80 million pairs.
PEER_RATE, PEER_WARM_UP = 0.02, 0.1


def ours(data: Path, output: Path, seed: int, loss: str) -> float:
    """Train with the command's own function, in the environment that every command sets; seconds."""
    from freemvmt.runtime.devices import keep_arrow_to_malloc

    keep_arrow_to_malloc()
    from freemvmt.config import TrainConfig
    from freemvmt.training import train_and_save

    fonts = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "matplotlib")  # found once a machine
    os.environ.setdefault("MPLCONFIGDIR", str(fonts))
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=output.parent)  # no tokens from an earlier run
    started = time.perf_counter()
    train_and_save(
        TrainConfig(
            dataset=(str(data),), epochs=1, batch_size=BATCH, seed=seed, loss=loss, wandb=False, output=str(output)
        )
    )
    return time.perf_counter() - started


def peer(data: Path, output: Path, seed: int, workers: int) -> float:
    """Train with sentence-transformers; seconds until its own model is saved."""
    import datasets
    import pyarrow.parquet as pq
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from serving_peer import static_model
    from transformers.trainer_callback import ProgressCallback

    from freemvmt.model import TwoTowersModel

    ours = TwoTowersModel()
    started = time.perf_counter()
    rows = pq.read_table(data / "train-00000-of-00001.parquet", columns=["query", "passages"])
    anchors, positives = [], []
    for query, passages in zip(rows["query"].to_pylist(), rows["passages"].to_pylist(), strict=True):
        for text, selected in zip(passages["passage_text"], passages["is_selected"], strict=True):
            if selected:
                anchors.append(query)
                positives.append(text)
    pairs = datasets.Dataset.from_dict({"anchor": anchors, "positive": positives})
    model: SentenceTransformer = static_model(ours)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH,
            learning_rate=PEER_RATE,
            warmup_steps=PEER_WARM_UP,
            seed=seed,
            use_cpu=True,
            dataloader_num_workers=workers,
            dataloader_persistent_workers=workers > 0,
            save_strategy="no",
            report_to="none",
            logging_strategy="no",
            disable_tqdm=True,
        )
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=pairs, loss=MultipleNegativesRankingLoss(model)
        )
        trainer.remove_callback(ProgressCallback)
        trainer.train()
        model.save(str(Path(folder) / "saved"))
        taken = time.perf_counter() - started
    static = model[0]
    assert isinstance(static, StaticEmbedding)
    ours.document_tower.table.data.copy_(static.embedding.weight.data)
    ours.save(output)
    return taken


def main() -> int:
    """Train once and say what it took."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("who", choices=["ours", "peer"])
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--output", type=Path, required=True)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--loss", default="triplet")
    arguments.add_argument("--workers", type=int, default=0)
    given = arguments.parse_args()
    begun = time.perf_counter()
    if given.who == "ours":
        taken = ours(given.data, given.output, given.seed, given.loss)
    else:
        taken = peer(given.data, given.output, given.seed, given.workers)
    # ru_maxrss is in KiB on Linux.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    whole = time.perf_counter() - begun
    sys.stdout.write(json.dumps({"seconds": taken, "whole": whole, "peak_mib": peak}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
