"""`kill -9` at random moments: every command that writes goes on, ends the same, and leaves nothing behind.

    uv run python benchmarks/kills.py [--kills 100]

Each command is first run undisturbed. Then it is started again and again, killed after a random share of that time (the
seed is fixed), and started once more with the words that its user would give; what it has made then is compared with
what the undisturbed one made. Real commands, real processes, the real token table.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import record

from freemvmt.search.retriever import Retriever

SEED = 0
_TRIALS = 3
PATIENCE = 180.0  # seconds that a command may take after it was killed
_WORDS = (
    "river", "mountain", "doctor", "engine", "kitchen", "planet", "piano", "winter", "market", "soldier", "garden",
    "camera", "bridge", "teacher",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A command to kill: its words, those that go on after a kill, and what is the same in the end."""

    name: str
    share: float  # of all kills
    words: list[str]
    again: Callable[[], list[str]]
    outcome: Callable[[], Any]
    fresh: Callable[[], None]  # makes the place as it was before


def main() -> int:
    """Kill, go on, compare, print, write results/kills.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=100)
    kills = arguments.parse_args().kills
    draw = random.Random(SEED)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        for task in _tasks(draw):
            found[task.name] = _killed(task, max(1, round(kills * task.share)), draw)
            sys.stdout.write(f"{task.name:<6} {found[task.name]}\n")
            sys.stdout.flush()
    failed = sum(len(one["failures"]) for one in found.values())
    protocol = f"kill -9 after a random share of the undisturbed time, seed {SEED}, then the command that goes on"
    sys.stdout.write(f"wrote {record.write('kills', protocol, [SEED], {'commands': found, 'failures': failed})}\n")
    return 1 if failed else 0


def _tasks(draw: random.Random) -> list[Task]:
    pairs = [(" ".join(draw.sample(_WORDS, 3)), " ".join(draw.choices(_WORDS, k=20)) + f" {n}") for n in range(3000)]
    rows = [json.dumps({"query": f"{query} {n}", "passage": passage}) for n, (query, passage) in enumerate(pairs)]
    Path("pairs.jsonl").write_text("\n".join(rows))
    documents = [json.dumps({"id": f"d{n}", "text": passage}) for n, (_, passage) in enumerate(pairs)]
    Path("corpus.jsonl").write_text("\n".join(documents))
    Path("more.jsonl").write_text("\n".join(json.dumps({"id": f"m{n}", "text": f"zebra {n}"}) for n in range(500)))
    run = ["--no-wandb", "--dataset", "pairs.jsonl", "--batch-size", "64"]
    _run(["train", *run, "--epochs", "1", "--output", "model"])
    _run(["index", "model", "corpus.jsonl", "--output", "base"])
    shutil.copytree("base", "other")
    _run(["retune", "other", "--dataset", "pairs.jsonl", "--epochs", "1", "--even-if-worse"])
    shutil.copytree("other/model", "tuned")
    train = ["train", *run, "--epochs", "8", "--checkpoint-steps", "20", "--output", "out/trained"]

    def trained_again() -> list[str]:
        left = list(Path("out/trained.checkpoints").glob("step-*.safetensors"))
        return ["train", "--resume", "out/trained.checkpoints"] if left else train

    mine = ["mine", "model", "pairs.jsonl", "--output", "out/mined.jsonl"]
    index = ["index", "model", "corpus.jsonl", "--output", "out/bundle"]
    add = ["add", "out/bundle", "more.jsonl"]
    retune = ["retune", "out/bundle", "--queries", "tuned"]
    sweep = [
        "sweep",
        "--config",
        "quick",
        "--count",
        str(_TRIALS),
        *run[:-2],
        "--epochs",
        "1",
        "--folder",
        "out/sweeps",
    ]
    return [
        Task("train", 0.2, train, trained_again, lambda: _bytes("out/trained/model.safetensors"), _empty),
        Task("mine", 0.2, mine, lambda: mine, lambda: _bytes("out/mined.jsonl"), _empty),
        Task("index", 0.2, index, lambda: index, lambda: _answers("out/bundle"), _empty),
        Task("add", 0.2, add, lambda: add, lambda: _answers("out/bundle"), _with_bundle),
        Task("retune", 0.1, retune, lambda: retune, lambda: _answers("out/bundle"), _with_bundle),
        Task("sweep", 0.1, sweep, lambda: sweep, _sweep_is_sound, _empty),
    ]


def _killed(task: Task, kills: int, draw: random.Random) -> dict[str, Any]:
    task.fresh()
    started = time.monotonic()
    _run(task.words)
    whole = time.monotonic() - started
    right, names = task.outcome(), _names()
    failures, in_time, longest = [], 0, 0.0
    for number in range(kills):
        task.fresh()
        share = draw.random()
        child = subprocess.Popen(_command(task.words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            child.wait(share * whole)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            in_time += 1
        time.sleep(1.1)  # a part is taken for a leftover after a second
        started = time.monotonic()
        done = subprocess.run(_command(task.again()), capture_output=True, text=True, timeout=PATIENCE, check=False)
        longest = max(longest, time.monotonic() - started)
        if done.returncode or task.outcome() != right or (task.name != "sweep" and _names() != names):
            failures.append({"kill": number, "share": round(share, 3), "said": done.stderr[-500:], "left": _names()})
    return {
        "kills": kills, "while_it_ran": in_time, "seconds_undisturbed": round(whole, 2),
        "longest_to_go_on": round(longest, 2), "failures": failures,
    }  # fmt: skip


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "freemvmt", *words]


def _run(words: list[str]) -> None:
    subprocess.run(_command(words), stdout=subprocess.DEVNULL, check=True)


def _empty() -> None:
    shutil.rmtree("out", ignore_errors=True)
    Path("out").mkdir()


def _with_bundle() -> None:
    _empty()
    shutil.copytree("base", "out/bundle")


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def _answers(bundle: str) -> Any:
    """What a bundle holds and answers."""
    retriever = Retriever.load(bundle)
    try:
        hits = retriever.search(["river mountain doctor", "zebra 17", "piano"], 20)
        return len(retriever), [[(hit.id, round(hit.score, 5)) for hit in one] for one in hits]
    finally:
        retriever.close()


def _sweep_is_sound() -> bool:
    """Whether the trials that were asked for are done, and none is left as if it ran."""
    with contextlib.closing(sqlite3.connect("out/sweeps/quick.db")) as file:
        states = dict(file.execute("SELECT state, count(*) FROM trials GROUP BY state").fetchall())
        values = file.execute("SELECT count(*) FROM trial_values").fetchone()[0]
    return states.get("COMPLETE", 0) + states.get("PRUNED", 0) >= _TRIALS <= values and "RUNNING" not in states


def _names() -> list[str]:
    """What lies in the place of output, hidden files too, but for what is inside a bundle or a model."""
    return sorted(path.name for path in Path("out").iterdir())


if __name__ == "__main__":
    sys.exit(main())
