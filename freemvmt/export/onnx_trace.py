"""Trace a transformer tower into an ONNX graph with the inputs and outputs of the other towers' graphs.

PyTorch's exporter without onnxscript (``dynamo=False``) writes it, whatever the encoder is. It records one pass, so
what an encoder decides in Python is fixed in the graph: the graph is compared with the tower on texts of other lengths.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from freemvmt.errors import UserError, first_line
from freemvmt.runtime.optional import require
from freemvmt.towers.transformer import TransformerTower

_OPSET = 20  # the newest that this exporter writes
_INPUTS, _OUTPUTS = ("input_ids", "attention_mask"), ("embedding", "length")
_TOLERANCE = 1e-4


class _Tower(nn.Module):
    """A tower and its head, over the inputs of a graph."""

    def __init__(self, tower: TransformerTower, head: nn.Module) -> None:
        super().__init__()
        self.tower, self.head = tower, head

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        vectors = self.head(self.tower.encode_padded(input_ids, attention_mask))
        return F.normalize(vectors), vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)


def traced_graph(tower: TransformerTower, head: nn.Module) -> Any:
    """The ONNX model of a transformer tower and its head; ``UserError`` if its encoder cannot be traced."""
    onnx = require("onnx")
    if tower.sentence.has_prompts:
        raise UserError("a graph reads tokens and knows no prompts; export this transformer with sentence-transformers")
    whole = _Tower(tower, head).train(False)
    example, other = _example(tower, 3, 7), _example(tower, 2, 5)
    axes = {name: {0: "texts", 1: "tokens"} for name in _INPUTS} | {name: {0: "texts"} for name in _OUTPUTS}
    try:
        with warnings.catch_warnings(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "graph.onnx"
            warnings.simplefilter("ignore")  # of the tracer, about what an encoder decides in Python
            traced = torch.jit.trace(whole, example, check_trace=False)  # type: ignore[no-untyped-call]
            difference = float((traced(*other)[0] - whole(*other)[0]).abs().max())
            torch.onnx.export(
                traced, example, path, input_names=_INPUTS, output_names=_OUTPUTS, dynamic_axes=axes,
                opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
            graph = onnx.load(path)
    except Exception as error:  # the errors of PyTorch, of encoders and of onnx have no other common base class
        reason = first_line(error)
        raise UserError(f"this transformer cannot be written as a graph ({reason}); export it with optimum") from error
    if not difference < _TOLERANCE:
        raise UserError(
            f"the graph of this transformer gives other vectors (by {difference:.0e}); export it with optimum"
        )
    return graph


def _example(tower: TransformerTower, texts: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Inputs of a graph: texts of ``tokens`` tokens, each text one shorter than the one before."""
    mask = (torch.arange(tokens) < tokens - torch.arange(texts).unsqueeze(1)).long()
    return mask * (torch.arange(tokens) % len(tower.table)), mask
