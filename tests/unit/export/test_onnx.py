"""The graphs of ONNX give our vectors, in the runtime that others have."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from freemvmt.cli import main
from freemvmt.data.ragged import TokenArray

from exports import TEXTS, VARIANTS, base_of, made


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
def test_onnxruntime_gives_our_vectors(variant: str, tiny_base: str, tiny_encoder: str, tmp_path: Path) -> None:
    model = made(base_of(variant, tiny_base, tiny_encoder), VARIANTS[variant])
    model.save(tmp_path / "model")
    command = ["export", str(tmp_path / "model"), "--format", "onnx", "--output", str(tmp_path / "onnx")]
    assert main(command) == 0
    apart = len(model.config.sides) == 2
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
