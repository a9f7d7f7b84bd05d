"""What a training leaves beside its model, and the page that lays several side by side."""

import base64
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from freemvmt.cli import main
from freemvmt.config import TrainConfig
from freemvmt.trainer.dataset import TrainingData
from freemvmt.trainer.history import COLORS, MAX_POINTS, History, picture, thinned
from freemvmt.trainer.report import read_trained_model
from freemvmt.trainer.result import TrainingResult, save
from freemvmt.training import train

from refusals import refusal


@pytest.fixture(scope="module")
def trained(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, TrainingResult]]:
    """Two trainings that differ in two settings."""
    home, found = tmp_path_factory.mktemp("trained"), {}
    for name, changes in {"a<b>": {}, "other": {"loss": "infonce", "temperature": 0.1}}.items():
        config = dataclasses.replace(tiny_config, **changes)
        result = train(config, tiny_data)
        save(config, tiny_data, result, home / name)
        found[name] = (home / name, result)
    return found


def test_every_step_and_every_epoch_is_there(trained: dict[str, tuple[Path, TrainingResult]]) -> None:
    for folder, result in trained.values():
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [row for row in rows if "batch_loss" in row]
        assert [row["step"] for row in losses] == list(range(1, result.steps + 1))
        epochs = [row for row in rows if "epoch" in row]
        assert epochs == result.history
        assert [row["val_ndcg_10"] for row in epochs] == [one["val_ndcg_10"] for one in result.history]
        per_epoch = result.steps // len(epochs)
        for number, row in enumerate(epochs):
            part = [one["batch_loss"] for one in losses[number * per_epoch : (number + 1) * per_epoch]]
            assert row["step"] == (number + 1) * per_epoch
            assert row["avg_train_loss"] == pytest.approx(sum(part) / len(part))
        assert rows == sorted(rows, key=lambda row: row["step"])
        picture = (folder / "curves.png").read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000


def test_a_long_course_keeps_its_shape_in_little_room() -> None:
    curve: list[list[float]] = []
    spacing = 1
    for step in range(1, 50_001):
        curve, spacing = thinned(curve, spacing, step, 1.0 / step)
        assert len(curve) < MAX_POINTS
    steps = [int(step) for step, _ in curve]
    assert steps[0] == 1
    assert steps[1:] == list(range(spacing, 50_001, spacing))
    assert len(curve) >= MAX_POINTS // 2 - 1
    assert all(loss == 1.0 / step for step, loss in curve)
    assert History(curve, [], 0.0).lines().count("\n") == len(curve)


class Page(HTMLParser):
    """Cells of the table, and every address that the page names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self._open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._open = tag in ("td", "th") or (self._open and tag == "i")

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag == "i"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def test_the_page_shows_scores_and_what_differs_and_asks_for_nothing(
    trained: dict[str, tuple[Path, TrainingResult]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [str(folder) for folder, _ in trained.values()]
    assert main(["report", *folders, "--output", str(tmp_path / "report.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.rows[0][-2:] == ["loss", "temperature"]
    assert [row[0] for row in page.rows[1:]] == folders
    for row, (_, result) in zip(page.rows[1:], trained.values(), strict=True):
        assert float(row[1]) == pytest.approx(result.val_ndcg_10, abs=1e-3)
    assert [row[-2] for row in page.rows[1:]] == ["triplet", "infonce"]
    assert [one["settings"]["loss"] for one in told["models"]] == ["triplet", "infonce"]
    (address,) = page.addresses
    kind, _, source = address.partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(source) == picture([read_trained_model(folder).history for folder, _ in trained.values()])
    assert not re.search(r"https?:|url\(|@import|<script", text)


def test_the_picture_has_every_training_in_its_colour(
    trained: dict[str, tuple[Path, TrainingResult]], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    picture([read_trained_model(folder).history for folder, _ in trained.values()])
    losses, scores = figures[0].axes
    for number, (_, result) in enumerate(trained.values()):
        batches, means, after = losses.lines[2 * number], losses.lines[2 * number + 1], scores.lines[number]
        assert len(batches.get_xdata()) == result.steps
        assert list(means.get_ydata()) == [entry["avg_train_loss"] for entry in result.history]
        measured = [result.untrained_ndcg_10, *(entry["val_ndcg_10"] for entry in result.history)]
        assert list(after.get_ydata()) == pytest.approx(measured, abs=1e-6)
        assert next(iter(after.get_xdata())) == 0
        assert {line.get_color() for line in (batches, means, after)} == {COLORS[number]}


def test_without_matplotlib_the_page_has_the_numbers_alone_and_a_line_says_so(
    trained: dict[str, tuple[Path, TrainingResult]], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("freemvmt.trainer.history.find_spec", lambda name: None)
    folders = [str(folder) for folder, _ in trained.values()]
    assert main(["report", *folders, "--output", str(tmp_path / "report.html")]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "the page has no picture, because matplotlib is not installed; install two-towers[sweep]"
    ]
    page = Page((tmp_path / "report.html").read_text())
    assert [row[0] for row in page.rows[1:]] == folders
    assert page.addresses == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: (folder / "metrics.jsonl").unlink(), "has no metrics.jsonl"),
        (lambda folder: (folder / "metrics.jsonl").write_text('{"step": 1}\n'), "no point of a training"),
        (lambda folder: (folder / "metrics.jsonl").write_text("{\n"), "not JSON"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
    ],
)
def test_what_is_no_training_is_refused(
    make: object, reason: str, tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = dataclasses.replace(tiny_config, epochs=1)
    save(config, tiny_data, train(config, tiny_data), tmp_path / "model")
    assert callable(make)
    make(tmp_path / "model")
    assert reason in refusal(capsys, tmp_path, "report", tmp_path / "model", "--output", tmp_path / "report.html")


def test_no_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no model is named" in refusal(capsys, tmp_path, "report", "--output", tmp_path / "report.html")
