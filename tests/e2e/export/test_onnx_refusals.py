"""What `export --format onnx` refuses."""

from pathlib import Path

import pytest

from freemvmt.config import ModelConfig
from freemvmt.model import TwoTowersModel

from refusals import refusal


def test_a_transformer_and_a_place_that_is_taken_are_refused(
    tiny_encoder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    TwoTowersModel(ModelConfig(base=tiny_encoder, tower="transformer")).save(tmp_path / "model")
    command = ["export", tmp_path / "model", "--format", "onnx", "--output"]
    assert "optimum" in refusal(capsys, tmp_path, *command, tmp_path / "out")
    TwoTowersModel(ModelConfig(base=tiny_encoder)).save(tmp_path / "average")
    command[1] = tmp_path / "average"
    assert "is there already" in refusal(capsys, tmp_path, *command, tmp_path / "model")
    line = refusal(
        capsys, tmp_path, "export", tmp_path / "average", "--format", "sentence-transformers", "--precision", "int8",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert "--precision is for --format onnx" in line
