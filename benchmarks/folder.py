"""A folder of Markdown files: to read, to index, to keep in step, and to learn from.

    uv run python benchmarks/folder.py

The files are docstrings of the installed packages as Markdown, a package a folder, a few docstrings a file. Each step
is a process of its own; its wall time and its largest resident memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import record

from freemvmt.data.corpus import read_corpus

SIZES = (1_000, 10_000)
ROUNDS = 3
PROTOCOL = (
    "Markdown files of docstrings; wall time and largest resident memory of whole processes, files in the system's "
    f"cache; the least of {ROUNDS} for a sync without changes, untrained averages"
)


def main() -> int:
    """Measure, print, write results/folder.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--sizes", nargs="+", type=int, default=list(SIZES))
    sizes = arguments.parse_args().sizes
    record.require_quiet()
    documents = list(read_corpus("pydocs"))
    figures: dict[str, Any] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as place:
            figures[str(size)] = measure(Path(place), documents, size)
    sys.stdout.write(f"wrote {record.write('folder', PROTOCOL, [0], {'files': figures}, ('markdown-it-py',))}\n")
    return 0


def measure(place: Path, documents: list[Any], size: int) -> dict[str, Any]:
    """The figures of a folder of ``size`` files."""
    files = write_files(place / "notes", documents, size)
    found: dict[str, Any] = {"bytes": sum(file.stat().st_size for file in files)}
    found["index"] = run(place, "index", "untrained", "notes", "--output", "bundle")
    found["files_per_second"] = round(size / found["index"]["seconds"])
    unchanged = [run(place, "sync", "bundle") for _ in range(ROUNDS)]
    found["sync, no change"] = min(unchanged, key=lambda one: one["seconds"])
    for file in files[:: size // 100][:100]:
        file.write_text(file.read_text(encoding="utf-8") + "\nOne more sentence at the end of it.\n", encoding="utf-8")
    found["sync, 100 files changed"] = run(place, "sync", "bundle")
    for file in files:
        os.utime(file)
    found["sync, all touched"] = run(place, "sync", "bundle")
    found["search"] = run(place, "search", "bundle", "singular values of a matrix")
    if size <= SIZES[0]:
        found["quickstart"] = run(place, "quickstart", "notes", "--output", "model")
    for name, figure in found.items():
        sys.stdout.write(f"{size:>7,} {name:<26} {figure}\n")
    sys.stdout.flush()
    return found


def write_files(folder: Path, documents: list[Any], size: int) -> list[Path]:
    """``size`` files of a few docstrings each, with a heading for every docstring."""
    sections: dict[str, list[str]] = defaultdict(list)
    each = 3
    for number in range(size * each):
        document = documents[number % len(documents)]
        name = f"{document.metadata['package']}/{number // each}.md"
        sections[name].append(f"## {document.title}\n\n{document.text}\n")
    files = []
    for number, (name, texts) in enumerate(list(sections.items())[:size]):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# Notes {number}\n\n" + "\n".join(texts), encoding="utf-8")
        files.append(path)
    return files


def run(place: Path, *arguments: str) -> dict[str, Any]:
    """Seconds and peak memory of `two-towers` with these arguments, in ``place``."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "freemvmt", *arguments, "--json"],
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    json.loads(answer)
    return {"seconds": round(seconds, 2), "peak_mib": round(usage.ru_maxrss / 1024)}


if __name__ == "__main__":
    sys.exit(main())
