"""Export towers as ONNX graphs, which turn token ids into vectors of length 1.

    input_ids, attention_mask (texts, tokens) int64
    ->  embedding (texts, dim), length (texts, 1), weights (texts, tokens) float32

``attention_mask`` is 1 for a token and 0 for padding. ``embedding`` is the vector after normalization to length 1, and
``length`` its length before. If the vector is a weighted sum of token vectors, the graph also returns the ``weights``,
which add up to 1. int8 quantizes the token table, with one scale for each row, and nothing else. GRU and LSTM
are nodes of ONNX; a transformer is traced (``onnx_trace``).
"""

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from freemvmt.config import LOGIT_LIMIT
from freemvmt.errors import UserError
from freemvmt.export.onnx_builder import Array, Builder
from freemvmt.export.onnx_trace import traced_graph
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import require
from freemvmt.search.stores.layout import MODEL_FOLDER, weight_ids
from freemvmt.storage.files import atomic_folder
from freemvmt.storage.manifest import hash_files, write_manifest
from freemvmt.storage.outputs import check_empty
from freemvmt.towers.average import AverageTower
from freemvmt.towers.cells import Gru, Lstm
from freemvmt.towers.model_folder import TOKENIZER, weight_files
from freemvmt.towers.recurrent import RecurrentTower
from freemvmt.towers.transformer import TransformerTower

Precision = Literal["fp32", "int8"]


def export_onnx(model: TwoTowersModel, folder: Path, precision: Precision = "fp32") -> None:
    """Write ``folder``: a graph for each distinct tower, tokenizer.json and config.json.

    ``UserError`` when the folder exists and is not empty, or a transformer cannot be written in this way.
    """
    require("onnx")
    if "transformer" in model.config.kinds and precision != "fp32":
        raise UserError(f"--precision {precision} is for towers that average or recur; leave it out for a transformer")
    check_empty(folder)
    sides = {"document": (model.document_tower, model.document_head)}
    if len(model.config.sides) == 2:
        sides["query"] = (model.query_tower, model.query_head)
    names = {side: f"{side}.onnx" if len(sides) == 2 else "model.onnx" for side in sides}
    with atomic_folder(folder) as temporary:
        for side, (tower, head) in sides.items():
            _write(graph_of(tower, head, precision), temporary / names[side])
        (temporary / TOKENIZER).write_text(model.tokenizer.written, encoding="utf-8")
        config = {
            "two_towers_onnx": 1, "dim": model.dim, "max_length": model.config.max_length,
            "document_tokens": model.document_tokens, "precision": precision,
            "hybrid_weight": model.hybrid_weight,
            "tower": model.config.kind_of("query"), "document": names["document"],
            "query": names.get("query", names["document"]),
            "add_special_tokens": False, "tokenizer": model.tokenizer.replaced, "model": _model_ids(model),
            "files": hash_files(temporary, [TOKENIZER, *names.values()]),
        }  # fmt: skip
        write_manifest(temporary / "config.json", config)


def _model_ids(model: TwoTowersModel) -> dict[str, str]:
    """The identity of ``model`` in the manifest of a bundle: SHA-256 of its weights and of its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / MODEL_FOLDER)
        ids = weight_ids(hash_files(Path(folder), [f"{MODEL_FOLDER}/{name}" for name in weight_files(model.config)]))
    assert ids is not None
    return {"id": ids[0], "tokenizer": model.tokenizer.digest}


def _write(graph: Any, path: Path) -> None:
    onnx = require("onnx")
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def graph_of(tower: nn.Module, head: nn.Module, precision: Precision) -> Any:
    """The ONNX model of a tower and its head."""
    if isinstance(tower, TransformerTower):
        return traced_graph(tower, head)
    build = Builder()
    rows = _rows(build, tower, precision)
    mask = build("Cast", "attention_mask", to=build.types.FLOAT)
    token_mask = build("Unsqueeze", mask, build.ints(2))  # (texts, tokens, 1)
    count = build("Max", build("ReduceSum", mask, build.ints(1), keepdims=1), build.floats(1.0))
    mean = build("Div", _weighted_sum(build, rows, token_mask), count)
    if isinstance(tower, RecurrentTower):
        pooled = _recurrent_vector(build, tower, rows, mask, token_mask, mean, count)
    else:
        assert isinstance(tower, AverageTower)
        pooled = mean
        build("Div", mask, count, output="weights")
    if isinstance(head, nn.Linear):
        pooled = build("MatMul", pooled, build.weights(head.weight.T))
    build("Max", build("ReduceL2", pooled, build.ints(1), keepdims=1), build.floats(1e-12), output="length")
    build("Div", pooled, "length", output="embedding")
    dim = head.out_features if isinstance(head, nn.Linear) else tower.width
    outputs: dict[str, list[str | int]] = {"embedding": ["texts", int(dim)], "length": ["texts", 1]}
    if not isinstance(tower, RecurrentTower) or tower.pooling == "weighted":
        outputs["weights"] = ["texts", "tokens"]
    return build.model(outputs)


def _rows(build: Builder, tower: nn.Module, precision: Precision) -> str:
    """The table rows of all tokens, (texts, tokens, width)."""
    table = tower.table
    assert isinstance(table, torch.Tensor)
    if precision == "fp32":
        return build("Gather", build.weights(table), "input_ids", axis=0)
    numbers = table.detach().cpu().numpy()
    scales = np.maximum(np.abs(numbers).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
    quantized = build.constant(np.round(numbers / scales).astype(np.int8))
    rows = build("Cast", build("Gather", quantized, "input_ids", axis=0), to=build.types.FLOAT)
    return build("Mul", rows, build("Gather", build.constant(scales), "input_ids", axis=0))


def _weighted_sum(build: Builder, values: str, weights: str) -> str:
    return build("ReduceSum", build("Mul", values, weights), build.ints(1), keepdims=0)


def _recurrent_vector(
    build: Builder, tower: RecurrentTower, rows: str, mask: str, token_mask: str, mean: str, count: str
) -> str:
    """The vectors of a recurrent tower before the head, (texts, width)."""
    inputs = build("Transpose", build("Mul", rows, build.constant(tower.scale.numpy())), perm=[1, 0, 2])
    lengths = build("Cast", build("ReduceSum", "attention_mask", build.ints(1), keepdims=0), to=build.types.INT32)
    states = _states(build, tower.cell, inputs, lengths)  # (tokens, texts, all hidden)
    vector = mean
    if tower.pooling != "mean":
        logits = build("MatMul", states, build.weights(tower.output.weight[:1].T))
        logits = build("Transpose", build("Squeeze", logits, build.ints(2)), perm=[1, 0])
        exponentials = build("Exp", build("Clip", logits, build.number(-LOGIT_LIMIT), build.number(LOGIT_LIMIT)))
        weights = build("Mul", exponentials, mask)
        total = build("Max", build("ReduceSum", weights, build.ints(1), keepdims=1), build.floats(1e-12))
        shares = build("Div", weights, total, output="weights" if tower.pooling == "weighted" else "")
        vector = _weighted_sum(build, rows, build("Unsqueeze", shares, build.ints(2)))
    if tower.pooling == "weighted":
        return vector
    by_text = build("Transpose", states, perm=[1, 0, 2])
    pooled = build("Div", _weighted_sum(build, by_text, token_mask), count)
    projected = build("MatMul", pooled, build.weights(tower.to_vector.T))
    return build("Add", projected, vector) if tower.pooling == "both" or tower.residual else projected


def _states(build: Builder, cell: Gru | Lstm, inputs: str, lengths: str) -> str:
    """The states of all directions, joined."""
    recurrence, directions = cell.recurrence, 2 if cell.recurrence.bidirectional else 1
    kind = "GRU" if isinstance(cell, Gru) else "LSTM"
    # Order of the gates: r, z, n and i, f, g, o in PyTorch; z, r, n and i, o, f, g in ONNX.
    order = [1, 0, 2] if kind == "GRU" else [0, 3, 1, 2]
    settings: dict[str, Any] = {
        "hidden_size": recurrence.hidden_size,
        "direction": "bidirectional" if directions == 2 else "forward",
    }
    if kind == "GRU":
        settings["linear_before_reset"] = 1
    states = inputs
    for layer in range(recurrence.num_layers):
        w, r, b = [], [], []
        for direction in range(directions):
            name = f"l{layer}" + "_reverse" * direction
            matrices = [_reorder_gates(getattr(recurrence, f"weight_{part}_{name}"), order) for part in ("ih", "hh")]
            bias = [_reorder_gates(getattr(recurrence, f"bias_{part}_{name}"), order) for part in ("ih", "hh")]
            w.append(matrices[0])
            r.append(matrices[1])
            b.append(np.concatenate(bias))
        weights = [build.constant(np.stack(group)) for group in (w, r, b)]
        sequence = build(kind, states, *weights, lengths, **settings)
        by_token = build("Transpose", sequence, perm=[0, 2, 1, 3])
        states = build("Reshape", by_token, build.ints(0, 0, directions * recurrence.hidden_size))
    return states


def _reorder_gates(weight: torch.Tensor, order: list[int]) -> Array:
    gates = weight.detach().cpu().chunk(len(order))
    reordered: Array = torch.cat([gates[gate] for gate in order]).numpy()
    return reordered
