"""Power cuts at every moment: what was acknowledged is there, and nothing that is there is half.

    uv run python benchmarks/power_cut.py [--draws 1] [--tasks train change ...]

Each task of `power_tasks.py` runs once under strace. Then the power is cut before every single operation, and of what
no sync had made safe by then the file system loses all, nothing, or what a seeded draw says (`power_replay.py`). Each
state that comes of it, and that is not as another, is laid on the disk and looked at by the program itself. Nothing is
timed.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import record
from power_place import Task, prepare
from power_record import record as recorded
from power_replay import Mark, Recording, Sync, lay
from power_tasks import TASKS

SEED = 0


def main() -> int:
    """Record, cut, look, print, write results/power_cut.json."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=1, help="choices that are drawn at each cut, of each sort")
    names = [kind.__name__.lower() for kind in TASKS]
    arguments.add_argument("--tasks", nargs="+", choices=names, default=names)
    given = arguments.parse_args()
    found: dict[str, Any] = {}
    out = sys.stdout
    with tempfile.TemporaryDirectory() as name, quiet():
        place = Path(name).resolve()
        for task, recording in recordings(place, given.tasks):
            cuts = range(len(recording.operations) + 1)
            found[task.folder.name] = cut_off(task, recording, cuts, given.draws, SEED)
            out.write(f"{task.folder.name:<8} {found[task.folder.name]}\n")
            out.flush()
    failed = sum(one["failed"] for one in found.values())
    states = sum(one["states"] for one in found.values())
    sys.stdout.write(f"{states:,} states, {failed} failures\n")
    if given.tasks == names:
        protocol = (
            "each task recorded by strace; a cut before every operation; of what was not synced: nothing lost, all, "
            f"all writes, as nothing or zeroes, all names, {given.draws} times one alone, {given.draws} times some; "
            f"equal states are one; seed {SEED}"
        )
        figures = {"tasks": found, "states": states, "failures": failed}
        sys.stdout.write(f"wrote {record.write('power_cut', protocol, [SEED], figures)}\n")
    return 1 if failed else 0


@contextmanager
def quiet() -> Iterator[None]:
    """Commands that run in this process say nothing, and what a damaged cache is said by is known."""
    before = dict(os.environ)
    logging.disable(logging.CRITICAL)
    try:
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            yield
    finally:
        logging.disable(logging.NOTSET)
        os.environ.clear()
        os.environ.update(before)


def recordings(place: Path, names: Sequence[str]) -> list[tuple[Task, Recording]]:
    """Each of the tasks ``names``, made in ``place``, with what it did there."""
    os.environ["TWO_TOWERS_CACHE"] = str(place / "cache")
    prepare(place)
    tasks = [task for task in (kind(place) for kind in TASKS) if task.folder.name in names]
    for task in tasks:
        task.start()
    script = Path(__file__).with_name("power_tasks.py")
    command = [sys.executable, str(script), str(place), *names]
    found = recorded(command, [task.folder for task in tasks], dict(os.environ))
    for task in tasks:
        task.ended()
    return list(zip(tasks, found, strict=True))


def cut_off(task: Task, recording: Recording, cuts: Iterable[int], draws: int, seed: int) -> dict[str, Any]:
    """Look at what power cuts before the operations ``cuts`` leave of ``task``."""
    failures: list[str] = []
    states = 0
    for cut, fates in recording.states(cuts, draws, seed):
        lay(recording.tree(cut, fates), task.folder, time.time() - 3600)
        states += 1
        try:
            task.judge(recording.marks(cut))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
            where = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            failures.append(f"{recording.shown(cut, fates)}: {what}")
    kinds = Counter(type(operation).__name__ for operation in recording.operations)
    return {
        "operations": len(recording.operations),
        "syncs": kinds[Sync.__name__],
        "acknowledged": kinds[Mark.__name__],
        "states": states,
        "failed": len(failures),
        "failures": failures[:10],
    }


if __name__ == "__main__":
    sys.exit(main())
