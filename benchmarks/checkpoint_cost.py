"""What a checkpoint costs: the seconds that a training waits for one, and their share at one a minute.

    uv run python benchmarks/checkpoint_cost.py --data FOLDER

The real table and `qa`; an average and a recurrent tower are trained for a while with a checkpoint every few steps, and
each write is timed: gathering, sum, file, fsync, rename, and the removal of the one before the last.
"""

import argparse
import contextlib
import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import record

from freemvmt.config import TrainConfig
from freemvmt.trainer.checkpoints import Checkpoints
from freemvmt.trainer.dataset import prepare
from freemvmt.trainer.run import TrainingRun
from freemvmt.training import train

TOWERS: dict[str, dict[str, Any]] = {
    "average": {"checkpoint_steps": 3},
    "recurrent": {"tower": "recurrent", "loss": "infonce", "batch_size": 1024, "checkpoint_steps": 1},
}
WRITES = 12


class Enough(Exception):  # noqa: N818 - what was wanted is there
    """The writes are done."""


class Timed(Checkpoints):
    """Notes the seconds of each write."""

    seconds: list[float]
    bytes = 0

    def write(self, run: TrainingRun) -> bool:
        """Write, and stop once there are enough."""
        started = time.perf_counter()
        done = super().write(run)
        self.seconds.append(time.perf_counter() - started)
        assert self.folder is not None
        self.bytes = max(path.stat().st_size for path in self.folder.iterdir())
        if len(self.seconds) == WRITES:
            raise Enough
        return done


def main() -> int:
    """Train, time, print, write results/checkpoint_cost.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--data", type=Path, required=True)
    given = arguments.parse_args()
    record.require_quiet()
    found: dict[str, Any] = {}
    for name, changes in TOWERS.items():
        config = TrainConfig(dataset=(str(given.data / "qa"),), max_samples=20_000, wandb=False, epochs=50)
        config = dataclasses.replace(config, **changes)
        data = prepare(config)
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:  # not in memory, as /tmp may be
            checkpoints = Timed(Path(place) / "checkpoints", config, data)
            checkpoints.seconds = []
            with contextlib.suppress(Enough):
                train(config, data, checkpoints=checkpoints)
        seconds = statistics.median(checkpoints.seconds)
        found[name] = {
            "seconds": round(seconds, 3),
            "slowest": round(max(checkpoints.seconds), 3),
            "megabytes": round(checkpoints.bytes / 1e6, 1),
            "share_at_default": round(seconds / config.checkpoint_seconds, 4),
        }
        sys.stdout.write(f"{name:<10} {found[name]}\n")
    protocol = f"median of {WRITES} checkpoints in a training on 20,000 rows of qa; share of a minute, the default"
    sys.stdout.write(f"wrote {record.write('checkpoint_cost', protocol, [0], {'towers': found}, ['safetensors'])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
