"""What `export --format onnx` refuses."""

import re
from pathlib import Path
from typing import Any

import pytest

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel
from freemvmt.towers.transformer import TransformerTower

from refusals import refusal


@pytest.mark.parametrize(
    ("encode", "reason"),
    [
        (lambda tower, ids, mask: mask.float() @ tower.table[: mask.shape[1]] + int(mask.sum()), "gives other vectors"),
        (lambda tower, ids, mask: tower.table[0].expand(len(ids), -1), "cannot be written as a graph"),
        (lambda tower, ids, mask: mask.nothing, "cannot be written as a graph .*has no attribute 'nothing'"),
    ],
)
def test_an_encoder_that_cannot_be_traced_is_refused(
    encode: Any, reason: str, tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What it decides in Python would be fixed in the graph."""
    TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer")).save(tmp_path / "model")
    monkeypatch.setattr(TransformerTower, "encode_padded", encode)
    command = ["export", tmp_path / "model", "--format", "onnx", "--output", tmp_path / "out"]
    line = refusal(capsys, tmp_path, *command)
    assert re.search(reason, line)
    assert "export it with optimum" in line


def test_a_transformer_of_bytes_and_a_place_that_is_taken_are_refused(
    tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer")).save(tmp_path / "model")
    command = ["export", tmp_path / "model", "--format", "onnx", "--output"]
    line = refusal(capsys, tmp_path, *command, tmp_path / "out", "--precision", "int8")
    assert "--precision int8 is for towers that average or recur" in line
    TwoTowersModel(ModelConfig(base=tiny_encoder)).save(tmp_path / "average")
    command[1] = tmp_path / "average"
    assert "is there already" in refusal(capsys, tmp_path, *command, tmp_path / "model")
    line = refusal(
        capsys, tmp_path, "export", tmp_path / "average", "--format", "sentence-transformers", "--precision", "int8",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "--precision is for --format onnx" in line
