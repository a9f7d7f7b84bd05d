"""Two processes under torchrun: the same weights as one, from any checkpoint, and no half of a training."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from freemvmt.cli import main
from freemvmt.config import TrainConfig, changed_flags
from freemvmt.model import TwoTowersModel
from freemvmt.trainer.dataset import TrainingData, prepare
from freemvmt.trainer.distributed import SingleProcess
from freemvmt.training import train

from stopping import Stopped, StoppedAt

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
SEVERAL = Path(__file__).parents[2] / "helpers" / "several.py"


def together(*commands: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the commands in two processes, one after the other."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in commands]
        ports = [one.getsockname()[1] for one in sockets]
    command = [*TORCHRUN, str(SEVERAL), json.dumps(commands), json.dumps(ports)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | LOOPBACK)


def farthest(one: TwoTowersModel, other: TwoTowersModel) -> float:
    weights = one.tensors(), other.tensors()
    assert weights[0].keys() == weights[1].keys()
    return max(float((weights[0][name] - weights[1][name]).detach().abs().max()) for name in weights[0])


VARIANTS: dict[str, dict[str, object]] = {
    "average": {"loss": "infonce", "learn_temperature": True, "dim": 24, "separate_towers": True},
    "recurrent": {"tower": "recurrent", "hidden": 8, "dropout": 0.0, "batch_size": 63},
}


LIGHT: dict[str, object] = {
    "loss": "align", "document_tower": "transformer", "dim": None, "separate_towers": False, "learning_rate": 1e-4
}  # fmt: skip


def test_two_processes_end_with_the_weights_of_one(
    tiny_config: TrainConfig,
    tiny_data: TrainingData,
    streamed_config: TrainConfig,
    streamed_data: TrainingData,
    tiny_encoder: str,
    tmp_path: Path,
) -> None:
    """Towers and losses of several kinds, a stream, and what one process has begun and two go on with."""
    exact: dict[str, object] = {"precision": "fp32", "epochs": 2}
    configs = {name: dataclasses.replace(tiny_config, **exact | changes) for name, changes in VARIANTS.items()}
    configs["stream"] = dataclasses.replace(streamed_config, **exact | {"loss": "infonce"})
    configs["light"] = dataclasses.replace(configs["average"], base=tiny_encoder, **LIGHT)
    data = {"stream": streamed_data, "light": prepare(configs["light"])}
    wholes = {name: train(config, data.get(name, tiny_data)) for name, config in configs.items()}
    words = {name: ["train", *changed_flags(config)] for name, config in configs.items()}
    wholes["begun"] = train(tiny_config, tiny_data)
    checkpoints = StoppedAt(tmp_path / "checkpoints", tiny_config, tiny_data)
    checkpoints.last = 5
    with pytest.raises(Stopped):
        train(tiny_config, tiny_data, checkpoints=checkpoints)
    words["begun"] = ["train", "--resume", str(tmp_path / "checkpoints")]

    done = together(*([*flags, "--output", str(tmp_path / name)] for name, flags in words.items()))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("val ndcg@10") == len(words)  # the first speaks for both
    for name, whole in wholes.items():
        model = TwoTowersModel.load(tmp_path / name)
        assert farthest(model, whole.model) < 1e-5, name
        assert model.record["scores"]["ndcg@10"] == pytest.approx(whole.val_ndcg_10, abs=1e-4), name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(words)


def test_one_that_dies_ends_all_and_one_goes_on_alone(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = dataclasses.replace(tiny_config, epochs=400, checkpoint_steps=5)
    words = ["train", *changed_flags(config), "--output", str(tmp_path / "model")]
    child = subprocess.Popen(
        [*TORCHRUN, "-m", "freemvmt", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | LOOPBACK,
    )
    folder, started = tmp_path / "model.checkpoints", time.monotonic()
    while not list(folder.glob("step-*.safetensors")):
        assert time.monotonic() - started < 60
        time.sleep(0.02)
    ranks = sorted(map(int, Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()))
    os.kill(ranks[-1], signal.SIGKILL)
    said = child.communicate(timeout=60)[1]
    assert child.returncode != 0, said
    assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
    resume = ["train", "--resume", str(folder), "--output", str(tmp_path / "model"), "--epochs", "1"]
    assert main([*resume, "--resume-anyway"]) == 0
    assert TwoTowersModel.load(tmp_path / "model").record["ended"] in ("finished", "patience")


def test_a_share_is_of_all_once() -> None:
    for size in (1, 2, 3, 7):
        for count in (0, 1, 6, 7, 100):
            parts = []
            for rank in range(size):
                one = SingleProcess()
                one.rank, one.size = rank, size
                parts += list(range(count))[one.share(count)]
            assert parts == list(range(count))


def test_alone_nothing_is_exchanged() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    alone = SingleProcess()
    alone.exchange([weight], [weight])
    assert weight.grad.tolist() == [1, 1]
    assert (alone.any_rank(True), alone.any_rank(False), alone.broadcast(lambda: 0.5)) == (True, False, 0.5)
