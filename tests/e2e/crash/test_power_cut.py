"""A short form of `benchmarks/power_cut.py`: every task, a few cuts and those just after something was acknowledged."""

import random
from collections.abc import Sequence
from pathlib import Path

import power_cut
from power_place import Task, Wrong
from power_replay import ROOT, Mark, Names, Recording, Write
from power_tasks import TASKS


def test_after_a_power_cut_what_was_acknowledged_is_there_and_nothing_is_half(strace: None, tmp_path: Path) -> None:
    """All tasks at once, for they are recorded in one process."""
    names = [kind.__name__.lower() for kind in TASKS]
    wrong: dict[str, list[str]] = {}
    with power_cut.quiet():
        for task, recording in power_cut.recordings(tmp_path.resolve(), names):
            every = range(len(recording.operations) + 1)
            said = [place + 1 for place, operation in enumerate(recording.operations) if isinstance(operation, Mark)]
            found = power_cut.cut_off(task, recording, [*said, *random.Random(1).sample(every, 5)], 1, 1)
            wrong[task.folder.name] = found["failures"]
            assert found["states"] > 5
            assert found["acknowledged"] == len(said) > 0
    assert wrong == {name: [] for name in names}


class Hasty(Task):
    """A file that takes the place of another with no sync, and the folder that it is in with none."""

    def judge(self, said: Sequence[str]) -> None:
        found = (self.folder / "file").read_text()
        if found not in (["first", "later"], ["later"])[len(said)]:
            raise Wrong(found)


def test_a_task_that_syncs_nothing_fails(tmp_path: Path) -> None:
    operations = [Names(((ROOT, "new", 1),)), Write(1, 0, b"later"), Names(((ROOT, "new", None), (ROOT, "file", 1)))]
    recording = Recording({1: b"", 2: b"first"}, {ROOT: {"file": 2}}, [*operations, Mark("")])
    found = power_cut.cut_off(Hasty(tmp_path), recording, range(5), 9, 0)
    ways = [failure.partition(": Wrong: ")[2].partition(" (")[0] for failure in found["failures"]]
    assert set(ways) == {"", "la", "\0" * 5, "first"}  # nothing, a half, zeroes; and what was said is not there
    assert found["failed"] == len(ways) < found["states"]
    assert "half of 1: 5 bytes at 0 of 1" in " ".join(found["failures"])
