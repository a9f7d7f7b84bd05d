"""How many trials does a sweep make in a minute? Beside as many runs of `train` by hand, with a shell loop.

    uv run python benchmarks/sweeps.py --data FOLDER

FOLDER holds `qa`. All train the same number of times for one epoch of 20,000 rows, batch 2,048. With one trial at a
time a sweep reads and tokenises the data once for all its trials; by default its first trial trains so, and the others
in two processes; `train` reads the data each time.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import record
from rounds import in_turns, summary

TRIALS, ROWS, ROUNDS = 20, 20_000, 3
OURS = "sweep"
PROTOCOL = (
    f"whole processes: a sweep of {TRIALS} trials by Optuna, its report among them, by default and with --jobs 1, and "
    f"{TRIALS} runs of train one after the other; one epoch of the first {ROWS:,} rows of qa, batch 2,048, the rate "
    "searched; in turns, ratios within a round, their median"
)


def main() -> int:
    """Measure, print, write results/sweeps.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    given = arguments.parse_args()
    record.require_quiet()
    command = str(Path(sys.executable).parent / "two-towers")
    flags = ["--dataset", str(given.data / "qa"), "--max-samples", str(ROWS), "--epochs", "1"]
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
        found = summary(in_turns(ways, ROUNDS), OURS)
    for figure in found.values():
        figure["trials_per_minute"] = round(60 * TRIALS / figure["seconds"], 1)
    sys.stdout.write(f"{found}\nwrote {record.write('sweeps', PROTOCOL, [0], {'ways': found}, ('optuna',))}\n")
    return 0


def _run(line: list[str]) -> None:
    subprocess.run(line, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.exit(main())
