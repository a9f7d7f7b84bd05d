"""How many trials does a sweep make in a minute? Beside as many runs of `train` by hand, with a shell loop.

    uv run python benchmarks/sweeps.py --data FOLDER

FOLDER holds `qa`. All train the same number of times for one epoch, on the first rows and on all. With one trial at a
time a sweep reads and tokenises the data once for all its trials; by default its first trial trains so, and the others
in two processes; `train` reads the data each time.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import record
from rounds import in_turns, summary

TRIALS, ROUNDS = 12, 3
ROWS = {"20,000 rows": 20_000, "109,357 rows": 109_357}  # the first of qa, and all
OURS = "sweep"
PROTOCOL = (
    f"whole processes: a sweep of {TRIALS} trials by Optuna, its report among them, by default and with --jobs 1, and "
    f"{TRIALS} runs of train one after the other; one epoch of rows of qa, batch 2,048, the rate searched; in turns, "
    "ratios within a round, their median"
)


def main() -> int:
    """Measure, print, write results/sweeps.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    given = arguments.parse_args()
    record.require_quiet()
    found = {name: _measure(given.data / "qa", rows) for name, rows in ROWS.items()}
    sys.stdout.write(f"{found}\nwrote {record.write('sweeps', PROTOCOL, [0], {'rows': found}, ('optuna',))}\n")
    return 0


def _measure(dataset: Path, rows: int) -> dict[str, Any]:
    """Seconds and trials a minute of each way."""
    command = str(Path(sys.executable).parent / "two-towers")
    flags = ["--dataset", str(dataset), "--max-samples", str(rows), "--epochs", "1"]
    flags += ["--batch-size", "2048", "--no-wandb"]
    with tempfile.TemporaryDirectory() as folder:

        def sweep(*more: str) -> None:
            place = tempfile.mkdtemp(dir=folder)
            _run([command, "sweep", "--config", "quick", "--count", str(TRIALS), "--folder", place, *flags, *more])

        def by_hand() -> None:
            for number in range(TRIALS):
                rate = str(1e-4 * (number + 1))
                output = f"{tempfile.mkdtemp(dir=folder)}/model"
                _run([command, "train", "--learning-rate", rate, "--output", output, *flags])

        ways = {OURS: sweep, "sweep, one trial at a time": lambda: sweep("--jobs", "1"), "train by hand": by_hand}
        found = summary(in_turns(ways, ROUNDS, warm_up=0), OURS)
    for figure in found.values():
        figure["trials_per_minute"] = round(60 * TRIALS / figure["seconds"], 1)
    return found


def _run(line: list[str]) -> None:
    subprocess.run(line, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
