"""The tracker against W&B itself, offline: what was recorded is read back from the file that it writes."""

import io
import logging
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import wandb

from freemvmt.config import TrainConfig
from freemvmt.trainer import tracking
from freemvmt.trainer.tracking import Tracker, WandbTracker

import wandb_file
from wandb_server import WandbServer


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(100, 8, sparse=True)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids).mean(1))


def steps(tracker: Tracker, model: Model, first: int, last: int) -> None:
    """A training loop in small: the loss at each step is 1 / step."""
    for step in range(first, last + 1):
        model.zero_grad()
        model(torch.randint(0, 100, (6, 5))).square().mean().backward()
        assert model.table.weight.grad.is_sparse
        tracker.log({"batch_loss": 1 / step, "epoch": 1}, step=step)


@pytest.fixture
def notes() -> Iterator[list[logging.LogRecord]]:
    """The log records of the tracker."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger = logging.getLogger(tracking.__name__)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield records
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a W&B key, without a terminal, in an empty folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in nobody(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    wandb.teardown()


def nobody(home: Path) -> dict[str, str]:
    """The environment of a user whom W&B does not know."""
    folders = {f"WANDB_{kind}_DIR": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")}
    return {"NETRC": str(home / "netrc"), **folders}


def test_all_that_is_recorded_stands_in_the_file(tmp_path: Path) -> None:
    model, config = Model(), TrainConfig(epochs=7, dataset=("pairs.jsonl",), run_name="first")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")

    tracker = tracking.start(config, extra={"trained_on": "pairs"})
    tracker.watch(model, every=2)
    steps(tracker, model, 1, 8)
    tracker.log({"val_ndcg_10": 0.5, "avg_train_loss": 0.25}, step=8)
    tracker.summary({"total_parameters": 836})
    tracker.save_model(tmp_path / "model", "the model/1")
    tracker.finish()

    run = wandb_file.read(Path("wandb"))
    assert (run.project, run.name, run.exit_code) == ("two-towers-retrieval", "first", 0)
    assert run.config["epochs"] == 7
    assert run.config["dataset"] == ["pairs.jsonl"]
    assert run.config["learning_rate"] == config.learning_rate
    assert run.config["trained_on"] == "pairs"
    assert run.series("batch_loss") == {step: 1 / step for step in range(1, 9)}
    assert run.series("val_ndcg_10") == {8: 0.5}
    assert run.series("avg_train_loss") == {8: 0.25}
    assert run.summary["total_parameters"] == 836
    assert run.artifacts == {"model:the-model-1": ["config.json"]}
    for name, weights in model.named_parameters():
        for kind in ("gradients", "parameters"):
            assert set(run.series(f"{kind}/{name}/_type").values()) == {"histogram"}, (kind, name)
            counts = run.series(f"{kind}/{name}/values")
            assert len(counts) == 4  # every second of eight passes
            assert all(sum(values) == weights.numel() for values in counts.values())  # the sparse gradient's zeros too


def test_a_second_run_names_its_histograms_like_the_first() -> None:
    for _ in range(2):
        model = Model()
        tracker = tracking.start(TrainConfig())
        tracker.watch(model, every=1)
        steps(tracker, model, 1, 2)
        tracker.finish()
        tracker.finish()
        steps(tracker, model, 3, 4)  # neither the model nor the tracker minds
    for folder in Path("wandb").glob("offline-run-*"):
        run = wandb_file.read(folder)
        assert set(run.series("gradients/table.weight/_type").values()) == {"histogram"}
        assert set(run.series("batch_loss")) == {1, 2}


def test_without_a_key_and_a_terminal_one_line_says_where_the_run_is(
    notes: list[logging.LogRecord], capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = tracking.start(TrainConfig())
    tracker.finish()
    (folder,) = Path("wandb").glob("offline-run-*")
    (note,) = notes
    assert note.levelno == logging.INFO
    assert f"wandb sync {folder}" in note.getMessage()
    assert capfd.readouterr() == ("", "")  # W&B itself says nothing

    tracking.start(TrainConfig(), announce=False).finish()
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"WANDB_MODE": "online"}, ""),
        ({"WANDB_MODE": "shared"}, ""),
        ({"WANDB_MODE": "dryrun"}, ""),
        ({"WANDB_API_KEY": "abc"}, "API key"),
        ({"WANDB_API_KEY": "abc", "WANDB_MODE": "online"}, "API key"),
        ({"WANDB_API_KEY": "abc", "WANDB_MODE": "offline"}, ""),
    ],
    ids=str,
)
def test_without_a_key_that_serves_the_run_is_on_disk_in_every_mode(
    monkeypatch: pytest.MonkeyPatch,
    notes: list[logging.LogRecord],
    capfd: pytest.CaptureFixture[str],
    variables: dict[str, str],
    reason: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    begun = time.monotonic()
    tracker = tracking.start(TrainConfig())
    tracker.log({"batch_loss": 0.5}, step=1)
    tracker.finish()
    assert time.monotonic() - begun < 60
    (folder,) = Path("wandb").glob("offline-run-*")
    assert wandb_file.read(folder).series("batch_loss") == {1: 0.5}
    (note,) = notes
    said = note.getMessage()
    assert said.endswith(f"; the run is on disk, to upload: wandb sync {folder}")
    assert reason in said
    assert bool(reason) == (note.levelno == logging.WARNING)
    assert "\n" not in said
    assert ".)" not in said
    assert capfd.readouterr() == ("", "")
    assert not tracking.signed_in()


@pytest.mark.parametrize("stdin", [None, "closed"])
def test_nobody_is_asked_where_stdin_is_closed(monkeypatch: pytest.MonkeyPatch, stdin: str | None) -> None:
    given = io.StringIO()
    given.close()
    monkeypatch.setattr(sys, "stdin", stdin and given)
    assert not tracking.signed_in()


@pytest.mark.parametrize("place", [os.devnull, "/proc/nothing", "file"])
def test_where_the_folder_cannot_be_written_the_line_says_where_the_run_is(
    monkeypatch: pytest.MonkeyPatch, notes: list[logging.LogRecord], place: str
) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("WANDB_DIR", place)
    tracking.start(TrainConfig()).finish()
    (note,) = notes
    folder = note.getMessage().rpartition("wandb sync ")[2]
    assert wandb_file.read(Path(folder)).exit_code == 0


def test_project_and_folder_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    tracking.start(TrainConfig()).finish(failed=True)
    run = wandb_file.read(tmp_path / "elsewhere" / "wandb")
    assert run.project == "theirs"
    assert run.exit_code == 1
    assert not Path("wandb").exists()
    assert tracking.project(TrainConfig(project_name="mine")) == "mine"


def test_disabled_records_nothing(monkeypatch: pytest.MonkeyPatch, notes: list[logging.LogRecord]) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert type(tracking.start(TrainConfig())) is Tracker
    assert not Path("wandb").exists()
    assert notes == []


def test_without_wandb_it_is_not_even_imported() -> None:
    code = (
        "import sys; from freemvmt.config import TrainConfig; from freemvmt.trainer import tracking\n"
        "tracker = tracking.start(TrainConfig(wandb=False)); tracker.log({'loss': 1.0}, step=1); tracker.finish()\n"
        "assert tracker.config == {}\n"
        "assert not {'wandb', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_training_goes_on_when_the_service_dies(
    notes: list[logging.LogRecord], capfd: pytest.CaptureFixture[str]
) -> None:
    model = Model()
    tracker = tracking.start(TrainConfig(), announce=False)
    assert isinstance(tracker, WandbTracker)
    tracker.watch(model, every=1)
    steps(tracker, model, 1, 3)
    kill_wandb_service()
    steps(tracker, model, 4, 8)  # the histograms of the model's own hooks fail first
    tracker.summary({"total_parameters": 836})
    tracker.finish()
    (note,) = notes
    assert note.levelno == logging.WARNING
    assert "wandb sync wandb/offline-run-" in note.getMessage()
    assert capfd.readouterr() == ("", "")

    after = tracking.start(TrainConfig(run_name="after"), announce=False)  # and the next run is whole again
    after.log({"batch_loss": 1.0}, step=1)
    after.finish()
    runs = [wandb_file.read(folder) for folder in Path("wandb").glob("offline-run-*")]
    assert [run.exit_code for run in runs if run.name == "after"] == [0]


def kill_wandb_service() -> None:
    process = wandb.setup()._connection._proc._process
    process.kill()
    process.wait()
    time.sleep(0.3)  # until the client has read the end of the connection


def test_training_goes_on_when_wandb_does_not_start(
    monkeypatch: pytest.MonkeyPatch, notes: list[logging.LogRecord]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "no such mode")
    tracker = tracking.start(TrainConfig())
    assert type(tracker) is Tracker
    assert not tracking.signed_in()
    note, _ = notes
    assert note.levelno == logging.WARNING
    assert "\n" not in note.getMessage()


def test_a_server_that_does_not_answer_means_offline(
    monkeypatch: pytest.MonkeyPatch, notes: list[logging.LogRecord]
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    tracking.start(TrainConfig()).finish()
    (note,) = notes
    (folder,) = Path("wandb").glob("offline-run-*")
    assert note.levelno == logging.WARNING
    assert "connection refused" in note.getMessage()
    assert f"wandb sync {folder}" in note.getMessage()
    assert wandb_file.read(folder).exit_code == 0


def test_online_the_server_gets_all_and_one_line_says_where(
    monkeypatch: pytest.MonkeyPatch, notes: list[logging.LogRecord], capfd: pytest.CaptureFixture[str]
) -> None:
    with WandbServer() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        model = Model()
        tracker = tracking.start(TrainConfig(epochs=7))
        tracker.watch(model, every=2)
        steps(tracker, model, 1, 4)
        tracker.finish()
        wandb.teardown()
    ((run, config),) = server.configs.items()
    assert config["epochs"] == 7
    assert {row["_step"]: row["batch_loss"] for row in server.history[run]} == {1: 1, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4}
    assert server.history[run][0]["gradients/table.weight"]["_type"] == "histogram"
    assert [note.getMessage() for note in notes] == [f"W&B run: {server.url}/somebody/two-towers-retrieval/runs/{run}"]
    assert capfd.readouterr() == ("", "")


def test_the_agent_can_stop_a_run() -> None:
    """A sweep's agent raises a bare ``Exception`` in the thread of a run: that is no failure of W&B."""
    tracker = tracking.start(TrainConfig(), announce=False)
    assert isinstance(tracker, WandbTracker)

    def stopped(run: object) -> None:
        raise Exception

    with pytest.raises(Exception, match=r"^$"):
        tracker._do(stopped)
    tracker.log({"batch_loss": 1.0}, step=1)
    tracker.finish()
    assert wandb_file.read(Path("wandb")).series("batch_loss") == {1: 1.0}


def test_at_a_terminal_wandb_asks(tmp_path: Path) -> None:
    """Its menu appears, and "Don't visualize my results" gives an offline run."""
    code = (
        "import logging, sys; logging.basicConfig(level=logging.INFO)\n"
        "from freemvmt.config import TrainConfig; from freemvmt.trainer import tracking\n"
        "tracking.start(TrainConfig()).finish()"
    )
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown, answered = "", False
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 0.2)[0]:
            continue
        try:
            shown += os.read(ours, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if not answered and "Enter your choice" in shown:
            os.write(ours, b"3\n")
            answered = True
    os.close(ours)
    assert process.wait(timeout=10) == 0, shown
    assert answered, shown
    assert "wandb sync wandb/offline-run-" in shown
