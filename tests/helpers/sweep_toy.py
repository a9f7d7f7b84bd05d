"""What both ways of sweeping are tried with: the training is a formula, so that a trial costs nothing.

That of the package is tried in ``test_training``.
"""

import io
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from freemvmt.config import TrainConfig
from freemvmt.runtime.console import Bar, Console
from freemvmt.tuning import run as sweeps
from freemvmt.tuning.report import SweepResult
from freemvmt.tuning.spaces import definition
from freemvmt.tuning.trial import Training

PAIRS = 3000
OnEpoch = Callable[[int, float], None]


def prepare(config: TrainConfig, console: Console) -> Any:
    return SimpleNamespace(name="toy", examples=SimpleNamespace(pairs=lambda: ([0] * PAIRS, [0] * PAIRS)))


def score(config: TrainConfig, epoch: int) -> float:
    rate = abs(math.log10(config.learning_rate / 8e-4))
    return 0.7 - 0.03 * rate**2 - 0.02 * abs(math.log2(config.batch_size / 256)) - 0.05 / epoch


def train(config: TrainConfig, data: Any, *, tracker: Any, console: Console, on_epoch: OnEpoch) -> Any:
    for epoch in range(1, config.epochs + 1):
        tracker.log({"val_ndcg_10": score(config, epoch)}, step=epoch)
        on_epoch(epoch, score(config, epoch))
    return SimpleNamespace(val_ndcg_10=score(config, config.epochs), ended="finished")


def sweep(name: Any = "quick", count: int = 3, **changes: Any) -> SweepResult:
    """A sweep of the formula without W&B, in the current folder."""
    settings = {"config": TrainConfig(wandb=False), "prepare": prepare, "train": train} | changes
    settings["training"] = Training(settings.pop("prepare"), settings.pop("train"))
    return sweeps.run_sweep(definition(name), settings.pop("config"), count=count, **settings)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a W&B key, without a terminal, in an empty folder."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        del os.environ[name]
    os.environ |= {f"WANDB_{kind}_DIR": str(tmp_path / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")}
    os.environ["NETRC"] = str(tmp_path / "netrc")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
    os.environ.clear()  # the client and its agent leave variables behind
    os.environ.update(before)


class Lines(Console):
    """A console that keeps the lines, and shows no bar."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str = "", seconds: float | None = None) -> None:
        self.lines.append(text)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Bar]:
        yield Bar()
