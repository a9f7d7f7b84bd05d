"""all-MiniLM-L6-v2 as others run it, one query at a time: the peer of the light query towers."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from freemvmt.config import BASE_MODEL
from freemvmt.storage import hub

Encode = Callable[[str], NDArray[Any]]


def sentence_transformers() -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(hub.encoder_folder(BASE_MODEL, "--base")), device="cpu")
    return lambda text: model.encode([text], show_progress_bar=False)


def onnx(path: Path) -> Encode:
    """MiniLM as a graph: the mean of its outputs, scaled to length 1. It is compared with sentence-transformers."""
    import onnxruntime

    folder = hub.encoder_folder(BASE_MODEL, "--base")
    _export(_MeanOfOutputs, path, {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()

    def encode(text: str) -> NDArray[Any]:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        return np.asarray(session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})[0])

    expected = sentence_transformers()
    for text in ("how tall is the tower in Paris", "a"):
        assert np.allclose(encode(text), expected(text), atol=1e-4)
    return encode


def export_outputs(path: Path) -> None:
    """MiniLM as a graph: the output of each token, which its user averages."""
    _export(_Outputs, path, {1: "tokens"})


def _export(head: "type[_Outputs]", path: Path, more_axes: dict[int, str]) -> None:
    import transformers

    folder = hub.encoder_folder(BASE_MODEL, "--base")
    encoder = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager")
    inputs, output = ("input_ids", "attention_mask"), "vector"
    example = (torch.ones(2, 5, dtype=torch.int64), torch.ones(2, 5, dtype=torch.int64))
    axes = {name: {0: "texts", 1: "tokens"} for name in inputs} | {output: {0: "texts", **more_axes}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter by tracing, which needs no further library
        torch.onnx.export(
            head(encoder).eval(), example, path, input_names=inputs, output_names=(output,), dynamo=False,
            dynamic_axes=axes, opset_version=17,
        )  # fmt: skip


class _Outputs(torch.nn.Module):
    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return outputs


class _MeanOfOutputs(_Outputs):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(input_ids, attention_mask)
        weights = attention_mask.unsqueeze(2).to(outputs.dtype)
        return torch.nn.functional.normalize((outputs * weights).sum(1) / weights.sum(1))
