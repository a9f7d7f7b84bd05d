"""What every result file says of itself: date, commit, code, versions, machine, and the figures, written whole."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aging

from freemvmt.storage.files import atomic_file

RESULTS = Path(__file__).parent / "results"
BUSY = 0.15  # cores: a quiet machine's own work takes less
PACKAGES = ("torch", "numpy", "transformers", "tokenizers", "nanotoken", "bm25s", "ir-measures", "two-towers")


def require_quiet(seconds: float = 3.0) -> None:
    """Exit if other processes keep the cores busy: figures of speed would be theirs too.

    BESIDE_LOAD=1 in the environment measures all the same; the result says how many cores were busy.
    """
    cores = _busy_cores(seconds)
    _machine["busy_cores_before"] = round(cores, 2)
    sys.stderr.write(f"other work takes {cores:.2f} of {os.cpu_count()} cores\n")
    if cores > BUSY and os.environ.get("BESIDE_LOAD") != "1":
        raise SystemExit("a figure of speed needs the machine to itself; wait for the others, or set BESIDE_LOAD=1")


def _busy_cores(seconds: float) -> float:
    """How many cores were busy, on average over ``seconds`` in which this process sleeps."""
    if not Path("/proc/stat").exists():
        return os.getloadavg()[0]
    before = _ticks()
    time.sleep(seconds)
    idle, every = (now - then for now, then in zip(_ticks(), before, strict=True))
    return (os.cpu_count() or 1) * (1 - idle / every)


def _ticks() -> tuple[int, int]:
    """(idle, all) ticks of all cores since the start of the machine."""
    ticks = [int(count) for count in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


_machine: dict[str, Any] = {}  # what is known of the machine beside its parts


def write(name: str, protocol: str, seeds: list[int], figures: dict[str, Any], packages: Sequence[str] = ()) -> Path:
    """Write ``results/NAME.json``; ``packages`` are those whose versions matter beside the usual ones."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    # Results of this and other benchmarks may lie about; all else should be as committed.
    status = [*git, "status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results"]
    changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout.strip()
    result = {
        "benchmark": name,
        "protocol": protocol,
        "seeds": seeds,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit + (" with changes" if changed else ""),
        "code": aging.digests(name),
        "versions": {package: version(package) for package in (*PACKAGES, *packages)},
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            **_machine,
        },
        **figures,
    }
    path = RESULTS / f"{name}.json"
    with atomic_file(path) as part:
        part.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return path


def read(name: str) -> dict[str, Any]:
    """What ``write`` wrote under that name."""
    found = load(name)
    for results in _readers:
        results[name] = found
    return found


def load(name: str) -> dict[str, Any]:
    """The file of that name."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def reading() -> Iterator[dict[str, dict[str, Any]]]:
    """The results, by name, that are read while the block runs: those whose figures it shows."""
    results: dict[str, dict[str, Any]] = {}
    _readers.append(results)
    try:
        yield results
    finally:
        _readers.remove(results)


_readers: list[dict[str, dict[str, Any]]] = []


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()
