"""When a checkpoint is written, which are kept, and what is said of one that belongs to another training."""

import dataclasses
import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.trainer import checkpoints as checkpoint
from freemvmt.trainer.checkpoints import Checkpoints, SavedRun, last_checkpoint
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.distributed import SingleProcess
from freemvmt.trainer.run import TrainingRun
from freemvmt.trainer.state import Progress


@pytest.fixture(scope="module")
def made(tiny_config: TrainConfig, tiny_data: TrainingData) -> TrainingRun:
    return TrainingRun.start(tiny_config, tiny_data, Checkpoints(None, tiny_config, tiny_data), SingleProcess())


def at(run: TrainingRun, step: int) -> TrainingRun:
    """The run, so many steps on."""
    return dataclasses.replace(run, state=Progress(step=step))


@pytest.fixture
def saved(tiny_config: TrainConfig, tiny_data: TrainingData, made: TrainingRun, tmp_path: Path) -> SavedRun:
    checkpoints = Checkpoints(tmp_path / "saved", tiny_config, tiny_data)
    checkpoints.run_id = "of W&B"
    assert checkpoints.write(at(made, 1))
    return last_checkpoint(tmp_path / "saved")


def test_one_is_written_as_soon_as_its_seconds_are_over(
    tiny_config: TrainConfig,
    tiny_data: TrainingData,
    made: TrainingRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    checkpoints = Checkpoints(tmp_path, dataclasses.replace(tiny_config, checkpoint_seconds=10), tiny_data)
    written = []
    for step, now in enumerate((9.5, 10.0, 19.5, 20.0), start=1):  # noqa: B007  read by the clock
        checkpoints.tick(at(made, step))
        written.append(sorted(int(path.stem[5:]) for path in tmp_path.iterdir()))
    assert written == [[], [2], [2], [2, 4]]


def test_whether_it_is_there_is_returned_and_each_failure_said_once(
    tiny_config: TrainConfig,
    tiny_data: TrainingData,
    made: TrainingRun,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    above = tmp_path / "above"
    checkpoints = Checkpoints(above / "checkpoints", tiny_config, tiny_data)
    for _ in range(2):
        above.write_text("no folder")
        assert [checkpoints.write(at(made, step)) for step in (1, 2)] == [False, False]
        (said,) = caplog.messages
        assert said.startswith("no checkpoint: cannot write ")
        assert said.endswith("; training goes on")
        caplog.clear()
        above.unlink()
        assert checkpoints.write(at(made, 3))
        shutil.rmtree(above)


def test_what_a_killed_run_left_is_taken_away_and_what_is_gone_does_not_matter(
    tiny_config: TrainConfig,
    tiny_data: TrainingData,
    made: TrainingRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints = Checkpoints(tmp_path, tiny_config, tiny_data)
    (tmp_path / ".step-0000000001.safetensors.half.part").mkdir()
    (tmp_path / "mine.part").mkdir()
    monkeypatch.setattr(checkpoint, "_files", lambda folder: [folder / "step-0000000001.safetensors"])  # taken just now
    assert checkpoints.write(at(made, 2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.part", "step-0000000002.safetensors"]


def test_a_run_goes_on_under_its_name(tiny_config: TrainConfig, tiny_data: TrainingData, saved: SavedRun) -> None:
    assert Checkpoints(saved.path.parent, tiny_config, tiny_data, saved).run_id == "of W&B"


def test_without_a_folder_the_data_is_not_read(
    tiny_config: TrainConfig, tiny_data: TrainingData, made: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(checkpoint, "_identity_of")
    assert Checkpoints(None, tiny_config, tiny_data).write(at(made, 1)) is False


def test_another_validation_is_another_training(
    tiny_config: TrainConfig, tiny_data: TrainingData, saved: SavedRun
) -> None:
    other = prepare(dataclasses.replace(tiny_config, validation_fraction=0.3)).validation
    with pytest.raises(UserError, match="content was "):
        Checkpoints(saved.path.parent, tiny_config, dataclasses.replace(tiny_data, validation=other), saved)


def test_what_a_checkpoint_does_not_say_is_another_and_anyway_it_goes_on(
    tiny_config: TrainConfig, tiny_data: TrainingData, saved: SavedRun, caplog: pytest.LogCaptureFixture
) -> None:
    del saved.plain["identity"]["versions"]
    saved.plain["identity"]["data"]["content"] = "other"
    content = Checkpoints(saved.path.parent, tiny_config, tiny_data)._identity["data"]["content"]
    with pytest.raises(UserError, match=f"content was 'other', is '{content}'; two-towers was None, is "):
        Checkpoints(saved.path.parent, tiny_config, tiny_data, saved)
    assert caplog.messages == []
    Checkpoints(saved.path.parent, tiny_config, tiny_data, saved, anyway=True)
    (said,) = caplog.messages
    assert said.startswith(f"going on with another training: content was 'other', is '{content}'; two-towers was None")


def test_a_checkpoint_says_on_what_it_was_made_and_another_platform_is_named(
    tiny_config: TrainConfig, tiny_data: TrainingData, saved: SavedRun, caplog: pytest.LogCaptureFixture
) -> None:
    config = dataclasses.replace(tiny_config, device="cpu", precision="fp32")
    cpu = f"cpu with {torch.backends.cpu.get_cpu_capability()}"
    expected = {"threads": torch.get_num_threads(), "processes": 1, "device": cpu, "precision": "float32"}
    assert Checkpoints(None, config, tiny_data)._platform == expected
    saved.plain["computed"] = expected | {"threads": 64, "processes": 2, "device": "abacus"}
    caplog.clear()
    Checkpoints(saved.path.parent, config, tiny_data, saved, anyway=True)
    said = f"the checkpoint was made with processes 2, now 1; device abacus, now {cpu}: the result may differ"
    assert any(message.startswith(said) for message in caplog.messages)


@pytest.mark.parametrize(("computed", "is_read"), [({}, True), (None, True), ("a laptop", False)])
def test_where_a_checkpoint_was_made_may_be_missing_but_is_no_text(
    computed: object,
    is_read: bool,
    tiny_config: TrainConfig,
    tiny_data: TrainingData,
    made: TrainingRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checkpoints from before 2026-12 do not say it."""
    checkpoints = Checkpoints(tmp_path, tiny_config, tiny_data)
    save = checkpoint.save_checked

    def without(path: Path, tensors: dict[str, torch.Tensor], text: str) -> None:
        header = json.loads(text) | {"computed": computed}
        if computed is None:
            del header["computed"]
        save(path, tensors, json.dumps(header))

    monkeypatch.setattr(checkpoint, "save_checked", without)
    assert checkpoints.write(at(made, 1))
    if is_read:
        assert last_checkpoint(tmp_path).plain["identity"]
    else:
        with pytest.raises(UserError, match="holds no checkpoint"):
            last_checkpoint(tmp_path)


def test_what_cannot_be_deleted_does_not_end_the_training(
    tiny_config: TrainConfig,
    tiny_data: TrainingData,
    made: TrainingRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At the end another process may have deleted the folder first."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", tiny_config, tiny_data)
    (tmp_path / "checkpoints").mkdir()
    part = tmp_path / "checkpoints" / ".step-0000000001.safetensors.half.part"
    part.mkdir()
    real = shutil.rmtree

    def gone(path: Path, ignore_errors: bool = False) -> None:
        real(path)
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", gone)
    assert checkpoints.write(at(made, 2))
    assert not part.exists()
    checkpoints.clear()
    assert not (tmp_path / "checkpoints").exists()
