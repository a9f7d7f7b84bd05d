"""A training that was stopped goes on bit for bit, whatever stopped it, or says why it cannot."""

import dataclasses
import itertools
import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb

from freemvmt.cli import main
from freemvmt.config import TrainConfig
from freemvmt.errors import UserError
from freemvmt.model import TwoTowersModel
from freemvmt.storage.tensor_files import load_checked, save_checked
from freemvmt.trainer.checkpoints import Checkpoints, last_checkpoint
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.run import TrainingRun
from freemvmt.training import train, train_and_save

from forked import Forks
from refusals import refusal
from stopping import Stopped, StoppedAt, same, stopped_after

VARIANTS: dict[str, dict[str, object]] = {
    "triplet": {},
    "triplet, random": {"negatives": "random", "separate_towers": True, "dim": 24},
    "infonce, mined": {"loss": "infonce", "negatives": "given", "self_mine_every": 1, "learn_temperature": True},
    "recurrent": {
        "tower": "recurrent",
        "hidden": 8,
        "layers": 2,
        "loss": "infonce",
        "warmup": 0.2,
        "matryoshka": (12,),
    },
    "recurrent, apart": {"tower": "recurrent", "cell": "lstm", "hidden": 8, "separate_towers": True, "patience": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_stopped_training_goes_on_bit_for_bit(
    variant: str, tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path
) -> None:
    config = dataclasses.replace(tiny_config, **VARIANTS[variant])
    whole = train(config, tiny_data)
    per_epoch = whole.steps // len(whole.history)
    stops = (2, per_epoch, per_epoch + 1, per_epoch + 3, 2 * per_epoch, whole.steps)
    assert same(stopped_after(stops, tmp_path / "checkpoints", config, tiny_data), whole)


def test_a_transformer_goes_on_too(tiny_encoder: str, rows_file: str, tmp_path: Path) -> None:
    config = TrainConfig(
        base=tiny_encoder, dataset=(rows_file,), tower="transformer", epochs=2, batch_size=64, wandb=False,
        max_samples=200,
    )  # fmt: skip
    data = prepare(config)
    whole = train(config, data)
    checkpoints = StoppedAt(tmp_path / "checkpoints", config, data)
    checkpoints.last = whole.steps // 2 + 1
    with pytest.raises(Stopped):
        train(config, data, checkpoints=checkpoints)
    saved = last_checkpoint(tmp_path / "checkpoints")
    assert same(
        train(config, data, checkpoints=Checkpoints(tmp_path / "checkpoints", config, data, saved=saved)), whole
    )


def test_two_are_kept_by_steps_or_by_time_and_none_when_it_is_over(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    class Watched(Checkpoints):
        def tick(self, run: TrainingRun) -> None:
            super().tick(run)
            assert self.folder is not None
            found = sorted(self.folder.glob("*")) if self.folder.exists() else []
            seen.append([int(path.stem[5:]) for path in found])

    config = dataclasses.replace(tiny_config, checkpoint_steps=3, epochs=1)
    steps = train(config, tiny_data, checkpoints=Watched(tmp_path / "by steps", config, tiny_data)).steps
    assert seen == [
        [number for number in (done - done % 3 - 3, done - done % 3) if number > 0] for done in range(1, steps + 1)
    ]
    seen.clear()
    config = dataclasses.replace(tiny_config, checkpoint_seconds=25, epochs=1)
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    train(config, tiny_data, checkpoints=Watched(tmp_path / "by time", config, tiny_data))
    monkeypatch.undo()
    assert 1 < len({tuple(one) for one in seen}) < steps
    output = tmp_path / "model"
    train_and_save(dataclasses.replace(tiny_config, checkpoint_steps=1, output=str(output)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by steps", "by time", "model"]


def command(config: TrainConfig, output: Path) -> list[str]:
    data, base = config.dataset[0], config.base
    flags = ["--dataset", data, "--base", base, "--epochs", "3", "--batch-size", "16", "--no-wandb"]
    return ["train", *flags, "--checkpoint-steps", "1", "--output", str(output)]


def test_a_killed_command_goes_on_and_ends_the_same(children: Forks, tiny_config: TrainConfig, tmp_path: Path) -> None:
    assert main(command(tiny_config, tmp_path / "whole")) == 0
    right = (tmp_path / "whole" / "model.safetensors").read_bytes()
    output, folder, said = tmp_path / "stopped", tmp_path / "stopped.checkpoints", tmp_path / "said"
    draw = np.random.default_rng(0)
    child = children.start(command=command(tiny_config, output), out=str(said))
    resume = ["train", "--resume", str(folder)]
    for stop in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        started = time.monotonic()
        while not list(folder.glob("step-*.safetensors")) and time.monotonic() - started < 60:
            time.sleep(0.01)
        time.sleep(draw.uniform(0.05, 0.3))
        os.kill(child, stop)
        ends = [[]] if stop == signal.SIGKILL else [[], ["exit 1"]]  # [] too: before it had begun to train
        assert children.rest() in ends, said.read_text()
        child = children.start(command=resume, out=str(said))
    assert children.rest() == ["exit 0"], said.read_text()
    assert "resuming" in said.read_text()
    assert (output / "model.safetensors").read_bytes() == right
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said", "stopped", "whole"]


def test_another_training_is_refused_with_what_differs(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = StoppedAt(tmp_path / "checkpoints", tiny_config, tiny_data)
    checkpoints.last = 4
    with pytest.raises(Stopped):
        train(tiny_config, tiny_data, checkpoints=checkpoints)
    resume = ["train", "--resume", str(tmp_path / "checkpoints"), "--output", str(tmp_path / "model")]
    said = refusal(capsys, tmp_path, *resume, "--epochs", 7, "--margin", 0.2)
    assert "margin was 0.1, is 0.2; epochs was 3, is 7; give the same, or --resume-anyway" in said
    assert main([*resume, "--epochs", "7", "--resume-anyway"]) == 0
    assert TwoTowersModel.load(tmp_path / "model").record["config"]["epochs"] == 7

    with pytest.raises(Stopped):
        train(tiny_config, tiny_data, checkpoints=checkpoints)
    saved = last_checkpoint(tmp_path / "checkpoints")
    other = prepare(dataclasses.replace(tiny_config, seed=1))
    with pytest.raises(UserError, match="content was"):
        Checkpoints(saved.path.parent, tiny_config, other, saved)
    saved.plain["identity"]["versions"]["torch"] = "1.0"
    with pytest.raises(UserError, match=r"torch was '1\.0', is"):
        Checkpoints(saved.path.parent, tiny_config, tiny_data, saved)
    named = dataclasses.replace(tiny_config, run_name="x", log_every=1)
    Checkpoints(saved.path.parent, named, tiny_data, saved, anyway=True)


@pytest.mark.parametrize("tower", ["average", "transformer"])
def test_what_computes_otherwise_than_before_is_said_in_one_line(
    tower: str, tiny_encoder: str, rows_file: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = TrainConfig(
        base=tiny_encoder, dataset=(rows_file,), tower=tower, epochs=1, batch_size=64, wandb=False, max_samples=200,
        device="cpu",
    )  # fmt: skip
    data, folder = prepare(config), tmp_path / "checkpoints"
    checkpoints = StoppedAt(folder, config, data)
    checkpoints.last = 2
    with pytest.raises(Stopped):
        train(config, data, checkpoints=checkpoints)
    saved = last_checkpoint(folder)

    def said(processes: int = 1) -> list[str]:
        caplog.clear()
        Checkpoints(folder, config, data, saved, processes=processes)
        return [record.getMessage() for record in caplog.records]

    assert said() == []
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        line = (
            f"the checkpoint was made with threads {before}, now {before + 1}: the result may differ in its last digits"
        )
        assert said() == ([line] if tower == "transformer" else [])  # an average is the same with any number
        result = train(config, data, checkpoints=Checkpoints(folder, config, data, saved))
        assert result.ended == "finished"
    finally:
        torch.set_num_threads(before)
    assert said(2) == ["the checkpoint was made with processes 1, now 2: the result may differ in its last digits"]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "OTHER")
    assert len(said()) == 1
    assert "now cpu with OTHER: the result may differ" in said()[0]
    del saved.plain["computed"]  # as checkpoints were written before
    assert said(2) == []


def test_a_damaged_one_is_passed_over_and_without_one_there_is_a_line(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "checkpoints"
    checkpoints = StoppedAt(folder, tiny_config, tiny_data)
    checkpoints.last = 4
    with pytest.raises(Stopped):
        train(tiny_config, tiny_data, checkpoints=checkpoints)
    older, newer = sorted(folder.iterdir())
    sound = newer.read_bytes()
    draw = np.random.default_rng(0)
    for number in range(40):
        damaged = bytearray(sound)
        damaged[int(draw.integers(len(sound)))] ^= 1 << int(draw.integers(8))
        newer.write_bytes(sound[: int(draw.integers(len(sound)))] if number % 4 == 0 else damaged)
        assert last_checkpoint(folder).path == older
        (said,) = caplog.messages
        assert re.fullmatch(rf"{newer} is damaged \((?!None).+\); it is passed over", said, re.DOTALL)
        caplog.clear()
    newer.write_bytes(sound)
    tensors, told = load_checked(newer)
    for changed in ({"identity": "x"}, {"run_id": 7}, {"identity": [], "run_id": None}):
        save_checked(newer, tensors, json.dumps(json.loads(told) | changed))
        assert last_checkpoint(folder).path == older
        assert "is damaged (it does not say of which run it is); it is passed over" in caplog.text
        caplog.clear()
    older.write_bytes(b"")
    with pytest.raises(UserError, match="holds no checkpoint"):
        last_checkpoint(folder)
    with pytest.raises(UserError, match="holds no checkpoint"):
        last_checkpoint(tmp_path / "nowhere")
    newer.write_bytes(sound)
    saved = last_checkpoint(folder)
    wider = dataclasses.replace(tiny_config, separate_towers=True)
    with pytest.raises(UserError, match="does not fit this training"):
        train(wider, tiny_data, checkpoints=Checkpoints(folder, wider, tiny_data, saved, anyway=True))


def test_what_is_gone_already_is_no_hindrance_to_taking_the_rest_away(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path
) -> None:
    Checkpoints(None, tiny_config, tiny_data).clear()
    Checkpoints(tmp_path / "none", tiny_config, tiny_data).clear()
    checkpoints = StoppedAt(tmp_path / "some", tiny_config, tiny_data)
    checkpoints.last = 3
    with pytest.raises(Stopped):
        train(tiny_config, tiny_data, checkpoints=checkpoints)
    next((tmp_path / "some").iterdir()).unlink()
    checkpoints.clear()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_once_and_training_goes_on(
    tiny_config: TrainConfig, tiny_data: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    config = dataclasses.replace(tiny_config, checkpoint_steps=1)
    result = train(config, tiny_data, checkpoints=Checkpoints(tmp_path / "file" / "under", config, tiny_data))
    assert result.ended == "finished"
    assert caplog.text.count("no checkpoint: cannot write") == 1


def test_a_run_of_wandb_goes_on_under_its_name(
    tiny_config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()  # what it has read of the environment before
    output = tmp_path / "model"
    config = dataclasses.replace(tiny_config, wandb=True, output=str(output), checkpoint_steps=1)
    before = Checkpoints.tick

    def stops(self: Checkpoints, run: TrainingRun) -> None:
        before(self, run)
        if run.state.step == 5:
            raise Stopped

    monkeypatch.setattr(Checkpoints, "tick", stops)
    with pytest.raises(Stopped):
        train_and_save(config)
    monkeypatch.setattr(Checkpoints, "tick", before)
    folder = tmp_path / "model.checkpoints"
    name = json.loads(json.dumps(last_checkpoint(folder).run_id))
    assert isinstance(name, str)
    time.sleep(1.1)  # the folder of a run is named by the second
    train_and_save(config, saved=last_checkpoint(folder))
    wandb.teardown()
    runs = sorted(path.name for path in (tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert all(run.endswith(name) for run in runs)
