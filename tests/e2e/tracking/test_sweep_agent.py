"""Sweeps by W&B's own client and agent, against a stand-in server."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from freemvmt.config import TrainConfig, replace
from freemvmt.errors import UserError

from sweep_toy import Lines, OnEpoch, score, sweep
from wandb_server import WandbServer

pytestmark = pytest.mark.usefixtures("alone")

CHOSEN = [
    {"learning_rate": 1e-4, "batch_size": 64, "margin": 0.125, "epochs": 2},
    {"learning_rate": 1e-3, "batch_size": 256, "margin": 0.25, "epochs": 3},
]


# W&B 0.31 uses what it has itself deprecated, and leaves the file open that it hands a run's settings over in.
DEPRECATED = "ignore:Read the .app_url. setting:DeprecationWarning"
UNCLOSED = "ignore:unclosed file .*config-run:ResourceWarning"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """W&B's client in this process talks to it."""
    from wandb.agents import pyagent

    monkeypatch.setattr(pyagent.Agent, "HEARTBEAT_SLEEP_SECONDS", 0.1)
    with WandbServer(CHOSEN) as running:
        os.environ |= running.environment()
        yield running
        sys.modules["wandb"].teardown()


@pytest.mark.filterwarnings(DEPRECATED, UNCLOSED)
def test_the_agent_trains_with_what_the_server_chose(server: WandbServer, capfd: pytest.CaptureFixture[str]) -> None:
    console = Lines()
    result = sweep("basic", count=2, config=TrainConfig(project_name="ours", temperature=0.0625), console=console)
    assert [trial.settings for trial in result.trials] == CHOSEN[::-1]
    assert not result.stopped
    assert console.lines[0] == f"sweep     basic, W&B chooses: {server.url}/somebody/ours/sweeps/sweep1"
    assert [line.split()[:2] for line in console.lines[1:3]] == [["trial", "0"], ["trial", "1"]]
    assert {"UpsertSweep", "CreateAgent", "Heartbeat"} < set(server.operations)
    assert "method: bayes" in server.sweep
    assert "early_terminate" in server.sweep
    for number, chosen in enumerate(CHOSEN):
        config, run = server.configs[f"run{number}"], replace(TrainConfig(), chosen)
        assert {name: config[name] for name in chosen} == chosen  # not those that the run was begun with
        assert config["temperature"] == 0.0625
        recorded = [row["val_ndcg_10"] for row in server.history[f"run{number}"]]
        assert recorded == pytest.approx([score(run, epoch) for epoch in range(1, run.epochs + 1)])
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings(DEPRECATED, UNCLOSED)
def test_runs_that_the_server_ends_early_or_that_fail(server: WandbServer, capfd: pytest.CaptureFixture[str]) -> None:
    errors = iter([Exception(), UserError("the loss is not a number")])  # the first is how the agent ends a run

    def ends(*arguments: Any, on_epoch: OnEpoch, **named: Any) -> Any:
        on_epoch(1, 0.5)
        raise next(errors)

    console = Lines()
    with pytest.raises(UserError, match="no trial came to its end"):
        sweep("basic", count=2, config=TrainConfig(), train=ends, console=console)
    assert [line.split()[:5] for line in console.lines[1:3]] == [
        ["trial", "0", "val_ndcg_10", "0.5000", "pruned"],
        ["trial", "1", "val_ndcg_10", "0.5000", "failed"],
    ]
    assert "Traceback" not in capfd.readouterr().err


def test_a_server_that_does_not_take_the_sweep(server: WandbServer) -> None:
    server._UpsertSweep = None  # type: ignore[assignment, method-assign]
    with pytest.raises(UserError, match="W&B did not take the sweep"):
        sweep("basic", count=1, config=TrainConfig())
