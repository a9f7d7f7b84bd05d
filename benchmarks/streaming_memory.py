"""Peak memory of a training that streams, on data of one and of ten times a size, beside the one that holds it all.

    uv run python benchmarks/streaming_memory.py --data FOLDER

The pairs of `qa` in Parquet shards, and ten times as many: each copy of a text begins with other words. One epoch of
average towers in a process of its own; its peak resident memory is what the system counted.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import record
from scaling import COMMAND, run

from freemvmt.data.examples import to_examples
from freemvmt.data.readers.parquet import read_parquet

BUFFER, BATCH = 32_768, 2048
_WORDS = ("river", "mountain", "doctor", "engine", "kitchen", "planet", "piano", "winter", "market", "soldier")


def main() -> int:
    """Write the shards, train, print, write results/streaming_memory.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    given = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for times in (1, 10):
            folder = Path(place) / f"{times}"
            pairs = _write(given.data / "qa", folder, times)
            for streaming in (True, False):
                row = {"times": times, "pairs": pairs, "streaming": streaming, **_trained(folder, streaming)}
                sys.stdout.write(f"{row}\n")
                sys.stdout.flush()
                rows.append(row)
    protocol = (
        f"one epoch of average towers, InfoNCE, batches of {BATCH:,}, shuffle buffer {BUFFER:,} rows, 2,000 queries of "
        "validation; peak resident memory of the process (wait4)"
    )
    sys.stdout.write(f"wrote {record.write('streaming_memory', protocol, [0], {'rows': rows}, ['torch', 'pyarrow'])}\n")
    return 0


def _write(source: Path, folder: Path, times: int) -> int:
    """Shards of ``times`` copies of the training pairs, and the validation pairs once."""
    folder.mkdir()
    pairs = 0
    for part, copies in (("train", times), ("validation", 1)):
        (path,) = source.glob(f"{part}-*.parquet")
        examples = to_examples(read_parquet(path, None, "query", "passage"), part)
        asked, answers = examples.pairs()
        queries = [examples.queries[number] for number in asked]
        passages = [examples.passages[number] for number in answers]
        for copy in range(copies):
            start = f"{_WORDS[copy]} " if copy else ""
            columns = {"query": [start + text for text in queries], "passage": [start + text for text in passages]}
            pq.write_table(pa.table(columns), folder / f"{part}-{copy}.parquet", row_group_size=16_384)
        pairs += len(asked) * copies if part == "train" else 0
    return pairs


def _trained(folder: Path, streaming: bool) -> dict[str, float]:
    flags = ["--epochs", "1", "--batch-size", str(BATCH), "--loss", "infonce", "--no-wandb"]
    place = ["--dataset", str(folder), "--output", str(folder / "model"), "--shuffle-buffer", str(BUFFER)]
    seconds, peak, _ = run([COMMAND, "train", *flags, *place, *["--streaming"] * streaming], folder)
    return {"peak_mib": round(peak), "seconds": round(seconds, 1)}


if __name__ == "__main__":
    sys.exit(main())
