"""Sweeps whose trials train in processes of their own: real ones, on a few rows."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.runtime.console import Console
from freemvmt.tuning.report import SweepResult
from freemvmt.tuning.run import run_sweep
from freemvmt.tuning.spaces import definition
from freemvmt.tuning.worker import GRACE

import wandb_file
from rows import write_rows
from sweep_toy import Lines

pytestmark = [pytest.mark.usefixtures("alone"), pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

LIMIT = 60.0  # seconds until a test gives up; no test waits for it


@pytest.fixture(autouse=True)
def _notes() -> None:
    """Warnings go to stderr, as in a command."""
    Console()


@pytest.fixture
def config(tmp_path: Path, tiny_base: str) -> TrainConfig:
    rows = write_rows(tmp_path / "rows.jsonl", 150)
    return TrainConfig(dataset=(str(rows),), base=tiny_base, epochs=1, batch_size=16, wandb=False)


def searching(early_terminate: dict[str, Any] | None = None, **parameters: dict[str, Any]) -> dict[str, Any]:
    ends = {"early_terminate": early_terminate} if early_terminate else {}
    return {"name": "few", "method": "bayes", "parameters": parameters, **ends}


def by_number(result: SweepResult) -> list[tuple[int, str, float | None, dict[str, Any]]]:
    trials = sorted(result.trials, key=lambda trial: trial.number)
    return [(trial.number, trial.state, trial.val_ndcg_10, trial.settings) for trial in trials]


def workers_of(process_id: int) -> set[int]:
    """The ids of the workers that a process has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if parent == process_id and b"freemvmt.tuning" in command:
            found.add(int(stat.parent.name))
    return found


def alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # a dead one whose new parent has not yet looked


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def test_trials_are_those_of_one_process_and_go_into_one_study(config: TrainConfig) -> None:
    quick, lines = definition("quick", ["batch_size"]), Lines()
    one = run_sweep(quick, config, count=4, jobs=1, folder=Path("one"))
    two = run_sweep(quick, config, count=4, jobs=2, folder=Path("two"), console=lines)
    assert by_number(two) == by_number(one)  # also the scores, bit by bit
    assert "sweep     2 trials at a time, each with 1 thread" in lines.lines
    assert sum(line.startswith("trial ") for line in lines.lines) == 4
    more = run_sweep(quick, config, count=1, jobs=2, folder=Path("one"))
    assert len(more.trials) == 5
    assert workers_of(os.getpid()) == set()


def test_a_trial_that_fails_is_a_warning(config: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    losses = searching(loss={"values": ["triplet", "align"]}, learning_rate={"min": 1e-4, "max": 1e-3})
    result = run_sweep(losses, config, count=6, jobs=2)
    states = {(trial.settings["loss"], trial.state) for trial in result.trials}
    assert states == {("triplet", "complete"), ("align", "failed")}
    failed = [trial.number for trial in result.trials if trial.state == "failed"]
    out, err = capfd.readouterr()
    assert out == ""
    assert sorted(line.partition(": the data was prepared")[0] for line in err.splitlines() if "failed" in line) == [
        f"warning: trial {number} failed" for number in sorted(failed)
    ]
    assert "Traceback" not in err


def test_a_sweep_that_only_fails_ends_with_the_error(config: TrainConfig) -> None:
    lines = Lines()
    with pytest.raises(UserError, match="the vectors to learn") as raised:
        run_sweep(definition("quick"), dataclasses.replace(config, loss="align"), count=9, jobs=2, console=lines)
    assert sum(line.startswith("trial ") for line in lines.lines) == 2
    assert "in train" in raised.value.__notes__[0]  # where in the worker
    assert workers_of(os.getpid()) == set()


def test_trials_that_promise_little_are_pruned(config: TrainConfig) -> None:
    early = {"type": "hyperband", "min_iter": 1, "eta": 2}
    rates = searching(early, learning_rate={"distribution": "log_uniform_values", "min": 1e-6, "max": 1e-2})
    result = run_sweep(rates, dataclasses.replace(config, epochs=4), count=8, jobs=2)
    states = [trial.state for trial in result.trials]
    assert set(states) == {"complete", "pruned"}
    assert len(states) == 8
    assert all(trial.val_ndcg_10 is not None for trial in result.trials)


class _Killing(Lines):
    """Kills all workers when the first trial ends."""

    killed: set[int] = frozenset()  # type: ignore[assignment]

    def line(self, text: str = "", seconds: float | None = None) -> None:
        super().line(text, seconds)
        if text.startswith("trial ") and not self.killed:
            self.killed = workers_of(os.getpid())
            for process_id in self.killed:
                os.kill(process_id, signal.SIGKILL)


def test_a_killed_worker_fails_its_trial_alone(config: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    console = _Killing()
    result = run_sweep(definition("quick"), config, count=6, jobs=2, console=console)
    states = [trial.state for trial in result.trials]
    failed = states.count("failed")
    assert len(states) == 6
    assert len(console.killed) == 2
    assert 1 <= failed <= 2  # the one without a trial may be given one before its end is known
    assert states.count("complete") == 6 - failed
    assert capfd.readouterr().err.count("failed: its process ended (signal SIGKILL)\n") == failed
    assert not any(alive(process_id) for process_id in console.killed)


def test_offline_each_trial_is_a_run_of_its_own(config: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    config = dataclasses.replace(config, wandb=True)
    result = run_sweep(definition("quick"), config, count=2, jobs=2, console=lines)
    runs = [wandb_file.read(folder) for folder in Path("wandb").glob("offline-run-*")]
    assert {run.config["learning_rate"] for run in runs} == {t.settings["learning_rate"] for t in result.trials}
    assert all(run.config["sweep_name"] == "quick" and run.exit_code == 0 for run in runs)
    assert "wandb     each trial is an offline run; to upload them: wandb sync wandb/offline-run-*" in lines.lines
    assert capfd.readouterr().out == ""


def test_data_that_change_during_the_sweep_are_refused(config: TrainConfig) -> None:
    class Changing(Lines):
        def line(self, text: str = "", seconds: float | None = None) -> None:
            if "at a time" in text:
                write_rows(Path(config.dataset[0]), 90)

    with pytest.raises(UserError, match="the data set has changed since the sweep began"):
        run_sweep(definition("quick"), config, count=3, jobs=2, console=Changing())


def test_a_number_of_jobs_below_0(config: TrainConfig) -> None:
    with pytest.raises(UserError, match="--jobs is -1; give 0 or more"):
        run_sweep(definition("quick"), config, count=1, jobs=-1)


# The command, and signals


@pytest.fixture
def long_sweep(config: TrainConfig) -> Iterator["subprocess.Popen[str]"]:
    """A sweep of trials that take minutes, with two workers that both train."""
    words = ["--config", "quick", "--count", "9", "--jobs", "2", "--epochs", "100000", "--no-wandb", "--dataset"]
    words += [*config.dataset, "--base", config.base]
    process = subprocess.Popen(
        [sys.executable, "-m", "freemvmt", "sweep", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "offline"},
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def both_workers(process: "subprocess.Popen[str]") -> set[int]:
    """The workers of a sweep, when both have trained for an epoch."""
    import sqlite3

    def epochs() -> int:
        try:
            with sqlite3.connect("file:sweeps/quick.db?mode=ro", uri=True) as file:
                found = file.execute("select count(distinct trial_id) from trial_intermediate_values").fetchone()
            file.close()
        except sqlite3.OperationalError:  # not there yet, or just being written
            return 0
        return int(found[0])

    until(lambda: process.poll() is not None or epochs() == 2)
    found = workers_of(process.pid)
    assert len(found) == 2
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_sweep_and_not_the_report(long_sweep: "subprocess.Popen[str]", number: int) -> None:
    workers = both_workers(long_sweep)
    long_sweep.send_signal(number)
    out, err = long_sweep.communicate(timeout=LIMIT)
    assert long_sweep.returncode == 1
    assert [line.split()[2] for line in out.splitlines() if line.split()[:1] in (["0"], ["1"])] == ["failed"] * 2
    assert "Traceback" not in err
    assert not any(alive(worker) for worker in workers)


def test_ctrl_c_in_a_worker_alone_fails_its_trial_alone(long_sweep: "subprocess.Popen[str]") -> None:
    first = min(both_workers(long_sweep))
    os.kill(first, signal.SIGINT)
    until(lambda: not alive(first) and len(workers_of(long_sweep.pid)) == 2)  # a new one
    long_sweep.send_signal(signal.SIGINT)
    _, err = long_sweep.communicate(timeout=LIMIT)
    assert err.count("failed: its process ended (exit code 0)") == 1


def test_a_killed_sweep_leaves_no_worker(long_sweep: "subprocess.Popen[str]") -> None:
    workers = both_workers(long_sweep)
    long_sweep.kill()
    until(lambda: not any(alive(worker) for worker in workers))
    assert GRACE < LIMIT
