"""The graphs of ONNX give our vectors, in the runtime that others have."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from test_exporting import TEXTS

from freemvmt.cli import main
from freemvmt.config import ModelConfig
from freemvmt.data.ragged import TokenArray
from freemvmt.model import TwoTowersModel

from refusals import refusal

CELLS = ("gru", "lstm", "sru")
VARIANTS: dict[str, dict[str, Any]] = {
    "average": {},
    "average, head": {"dim": 20},
    "average, apart": {"separate_towers": True, "dim": 12},
    **{
        f"{cell}, {layers}, {'both ways' if both else 'one way'}": {
            "cell": cell,
            "layers": layers,
            "bidirectional": both,
        }
        for cell, layers, both in itertools.product(CELLS, (1, 2), (True, False))
    },
    **{
        f"{cell}, {pooling}, {residual}": {"cell": cell, "pooling": pooling, "residual": residual, "dim": 16}
        for cell, pooling, residual in itertools.product(CELLS, ("mean", "max", "last"), (True, False))
    },
    "gru, apart": {"cell": "gru", "separate_towers": True, "shared_table": True},
}


def made(base: str, changes: dict[str, Any]) -> TwoTowersModel:
    recurrent = {"tower": "recurrent", "hidden": 8} if "cell" in changes else {}
    model = TwoTowersModel(ModelConfig(base=base, max_length=40, **recurrent, **changes))
    with torch.no_grad():
        for name, weight in model.tensors().items():
            if not name.endswith(("table", "scale")):
                weight.add_(torch.randn_like(weight) * 0.3)
    return model


def run(path: Path, tokens: TokenArray) -> NDArray[np.float32]:
    """What onnxruntime makes of them, padded as anyone would."""
    width = max(int(tokens.lengths.max(initial=0)), 1)
    mask = np.arange(width) < tokens.lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = tokens.ids
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (vectors,) = session.run(["embedding"], {"input_ids": ids, "attention_mask": mask.astype(np.int64)})
    found: NDArray[np.float32] = vectors
    return found


@pytest.mark.parametrize("variant", VARIANTS)
def test_onnxruntime_gives_our_vectors(variant: str, tiny_base: str, tmp_path: Path) -> None:
    model = made(tiny_base, VARIANTS[variant])
    model.save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--format", "onnx", "--output", str(tmp_path / "onnx")]
    assert main(command) == 0
    apart = model.config.separate_towers
    names = (
        {"query": "query.onnx", "document": "document.onnx"}
        if apart
        else dict.fromkeys(("query", "document"), "model.onnx")
    )
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {*names.values(), "config.json", "tokenizer.json"}
    for texts in (TEXTS, TEXTS[:1], ["", "  "], TEXTS[::-1]):
        tokens = model.tokenizer.encode(texts)
        for side, wanted in (("query", model.encode_queries(texts)), ("document", model.encode_documents(texts))):
            np.testing.assert_allclose(run(tmp_path / "onnx" / names[side], tokens), wanted.numpy(), atol=1e-5)


@pytest.mark.parametrize("variant", ["average", "gru, 1, both ways"])
def test_a_byte_a_number_is_near(variant: str, tiny_base: str, tmp_path: Path) -> None:
    model = made(tiny_base, VARIANTS[variant])
    model.save(tmp_path / "model")
    sizes = {}
    for precision in ("fp32", "int8"):
        output = tmp_path / precision
        command = ["export", str(tmp_path / "model"), "--format", "onnx", "--precision", precision]
        assert main([*command, "--output", str(output)]) == 0
        sizes[precision] = (output / "model.onnx").stat().st_size
    assert sizes["int8"] < 0.35 * sizes["fp32"]
    texts = [text for text in TEXTS if text.strip()]
    found = run(tmp_path / "int8" / "model.onnx", model.tokenizer.encode(texts))
    assert ((found * model.encode_documents(texts).numpy()).sum(1) > 0.999).all()


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
