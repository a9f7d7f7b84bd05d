"""How many trials train at a time, and with how many threads."""

from typing import Any

import pytest

from freemvmt.config import TrainConfig
from freemvmt.tuning import jobs as module
from freemvmt.tuning import workers
from freemvmt.tuning.jobs import jobs_for
from freemvmt.tuning.workers import threads_of_each

GIB = 2**30


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 2),
        ({"left": 1}, 1),
        ({"trial_seconds": None}, 1),  # the first trial says how long a trial takes
        ({"trial_seconds": 0.1}, 1),  # over before two processes have started
        ({"read_seconds": 100.0}, 1),
        ({"cores": 1}, 1),
        ({"cores": 16}, 2),
        ({"available": 2 * GIB}, 1),
        ({"available": None}, 1),
        ({"peak": None}, 1),
        ({"device": "cuda"}, 1),
    ],
)
def test_two_where_it_saves_time_and_there_is_room(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], expected: int
) -> None:
    case = {"left": 9, "trial_seconds": 5.0, "read_seconds": 2.0, "cores": 2, "available": 8 * GIB, "peak": GIB}
    case |= {"device": "cpu"} | changes
    monkeypatch.setattr(module, "cores", lambda: case["cores"])
    monkeypatch.setattr(module.memory, "available", lambda: case["available"])
    monkeypatch.setattr(module.memory, "peak", lambda: case["peak"])
    monkeypatch.setattr(module, "pick_device", lambda _: type("Device", (), {"type": case["device"]}))
    assert jobs_for(TrainConfig(), case["left"], case["trial_seconds"], case["read_seconds"]) == expected


@pytest.mark.parametrize(
    ("jobs", "given", "threads"), [(2, "", 4), (3, "", 2), (16, "", 1), (2, "2", 1), (1, "3", 3), (2, "4,2", 4)]
)
def test_the_workers_share_the_cores(monkeypatch: pytest.MonkeyPatch, jobs: int, given: str, threads: int) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads_of_each(jobs) == threads
