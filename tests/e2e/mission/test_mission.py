"""What the mission's lines bring, on a machine that reaches no Hub and no W&B: in `freemvmt/`, in a subprocess each,
with a home folder of its own. `auto` falls back on `pydocs` there. That each line ends well exactly as it is typed, the
sweeps among them, is what `benchmarks/readme.py` looks at."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from freemvmt.config import BASE_MODEL

from loopback_hub import LoopbackHub, client_environment

PACKAGE = Path(__file__).parents[3] / "freemvmt"


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment whose home is empty; outputs that have no flag go below the temporary folder."""
    return os.environ | {
        "HOME": str(tmp_path),
        "WANDB_DIR": str(tmp_path / "wandb"),
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "huggingface"),
    }


def python(
    arguments: list[str], environment: dict[str, str], folder: Path = PACKAGE
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_main_trains_with_the_flags_of_the_mission(elsewhere: dict[str, str], tmp_path: Path) -> None:
    flags = "--epochs 5 --batch-size 16 --learning-rate 2e-4 --max-samples 5000".split()
    output = ["--output", str(tmp_path / "model")]
    done = python(["main.py", "--no-wandb", "--json", *flags, *output], elsewhere)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert scores["ndcg@10"] > scores["untrained_ndcg@10"] + 0.03
    assert "pydocs" in done.stderr  # what stood in for MS MARCO is said
    assert not (tmp_path / "wandb").exists()


def test_training_needs_no_flag(elsewhere: dict[str, str], tmp_path: Path) -> None:
    """As typed: MS MARCO if it is there, else what is installed here; the model goes below the current folder."""
    done = python(["-m", "freemvmt", "train"], elsewhere, tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "models" / "pydocs" / "model.safetensors").exists()


def test_main_tracks_with_wandb_offline_and_says_where(elsewhere: dict[str, str], tmp_path: Path) -> None:
    elsewhere = elsewhere | {"WANDB_PROJECT": "mission-test"}
    done = python(["main.py", "--max-samples", "2000", "--epochs", "1", "--output", str(tmp_path / "model")], elsewhere)
    assert done.returncode == 0, done.stderr
    assert "wandb sync" in done.stderr
    runs = list((tmp_path / "wandb").rglob("*.wandb"))
    assert len(runs) == 1
    assert b"mission-test" in runs[0].read_bytes()


def test_the_python_lines_of_the_mission(elsewhere: dict[str, str]) -> None:
    lines = """
import torch
from freemvmt.model import TwoTowersModel
model = TwoTowersModel()
q = model.encode_queries(["what is machine learning"])
d = model.encode_documents(["Machine learning is the study of algorithms that improve with data."])
print(torch.cosine_similarity(q, d).item())
"""
    done = python(["-c", lines], elsewhere)
    assert done.returncode == 0, done.stderr
    assert 0.3 < float(done.stdout) <= 1


def test_main_trains_on_ms_marco_of_a_hub_with_the_model_of_that_hub(
    tmp_path: Path, tiny_base: str, rows_file: str
) -> None:
    """Through the real clients of datasets and huggingface_hub, against a Hub on loopback in the true layout."""
    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    with LoopbackHub() as hub:
        splits = {"train": rows[:500], "validation": rows[500:550], "test": rows[550:]}
        hub.add_ms_marco({"v1.1": splits, "v2.1": splits})
        hub.add_model(BASE_MODEL, {file.name: file.read_bytes() for file in Path(tiny_base).iterdir()})
        environment = client_environment(tmp_path, hub.url, WANDB_MODE="offline", WANDB_DIR=str(tmp_path))
        environment.pop("HF_HUB_OFFLINE", None)
        flags = ["--no-wandb", "--json", "--epochs", "2", "--batch-size", "64", "--output", str(tmp_path / "model")]
        done = python(["main.py", *flags], environment)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["data"] == "msmarco"
        assert found["dim"] == 48  # the Hub's table, not the package's
        assert found["validation"]["collection"] == "msmarco v1.1 validation"
        assert found["scores"]["ndcg@10"] > found["scores"]["untrained_ndcg@10"] + 0.1

        more = ["--streaming", "--shuffle-buffer", "120", "--msmarco-config", "v2.1", "--max-samples", "300"]
        streamed = python(["main.py", *flags, *more], environment)
        assert streamed.returncode == 0, streamed.stderr
        found = json.loads(streamed.stdout)
        assert found["validation"]["collection"] == "msmarco v2.1 validation"
        assert found["scores"]["ndcg@10"] > found["scores"]["untrained_ndcg@10"] + 0.05

        # What was trained goes to the Hub and comes back by its name.
        hub.add_model("someone/towers", {file.name: file.read_bytes() for file in (tmp_path / "model").iterdir()})
        measured = python(["-m", "freemvmt", "evaluate", "someone/towers", rows_file, "--json"], environment)
        assert measured.returncode == 0, measured.stderr
        assert json.loads(measured.stdout)["model"] == "someone/towers"
