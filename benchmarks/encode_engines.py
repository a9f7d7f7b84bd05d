"""`two-towers encode` by this process and by Ray Data: the same bytes, and what each takes.

    scripts/alone uv run --offline --extra ray python benchmarks/encode_engines.py --data FOLDER --model MODEL

Real sentences recombined to real lengths, in shards of 25,000 documents. Local on one core, on all, and by Ray, whose
actors have a core each; Ray's start is in its time, and beside it what is left of it. Three rounds in turns.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import record
from passages import recombined
from scaling import COMMAND

DOCUMENTS, SHARD, ROUNDS = 400_000, 25_000, 3


def main() -> int:
    """Measure, compare the bytes, print, write results/encode_engines.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--model", required=True)
    given = arguments.parse_args()
    record.require_quiet()
    cores = os.cpu_count() or 1
    names = ("local, one core", f"local, {cores} cores", "ray", "ray, its start")
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as home:
        corpus, few = Path(home) / "corpus.tsv", Path(home) / "few.tsv"
        texts = recombined(given.data, DOCUMENTS)
        corpus.write_text("".join(f"{place}\t{' '.join(text.split())}\n" for place, text in enumerate(texts)))
        few.write_text("0\tone document\n")
        for number in range(ROUNDS):
            outputs = {name: Path(home) / f"{name}-{number}" for name in seconds}
            for name, output in outputs.items():
                source = few if name == "ray, its start" else corpus
                line = [COMMAND, "encode", given.model, str(source), "--output", str(output), "--shard", str(SHARD)]
                line += ["--engine", "ray"] if name.startswith("ray") else []
                line = ["taskset", "-c", "0", *line] if name == "local, one core" else line
                started = time.perf_counter()
                subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                seconds[name].append(round(time.perf_counter() - started, 2))
                sys.stdout.write(f"{name:<18} {seconds[name][-1]}\n")
                sys.stdout.flush()
            first, *others = (_bytes_of(output) for name, output in outputs.items() if name != "ray, its start")
            assert all(other == first for other in others), "the engines differ"
    figures = {"documents": DOCUMENTS, "shard": SHARD, "seconds": seconds}
    figures["median"] = {name: statistics.median(found) for name, found in seconds.items()}
    protocol = f"whole processes, start-up and reading included; {ROUNDS} rounds in turns; all files equal to the byte"
    sys.stdout.write(f"wrote {record.write('encode_engines', protocol, [0], figures, ['ray', 'pyarrow'])}\n")
    return 0


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


if __name__ == "__main__":
    sys.exit(main())
