"""A tower as an ONNX graph: token ids in, vectors of length 1 out, for any runtime that reads ONNX.

    input_ids, attention_mask (texts, tokens) int64
    ->  embedding (texts, dim), length (texts, 1), weights (texts, tokens) float32

``attention_mask`` is 1 where there is a token and 0 behind a text's end. ``embedding`` times ``length`` is the vector
before it was made to length 1; of a tower that weighs its tokens it is the sum of what each gives alone, by
``weights``, which add up to 1. int8 keeps a byte for each number of the token
table, with a scale for each row, and all else as it is. The steps of an SRU are a Scan; GRU and LSTM are ONNX's own.
"""

import hashlib
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from freemvmt.errors import UserError
from freemvmt.export.onnx_builder import Array, Builder
from freemvmt.model import TwoTowersModel
from freemvmt.runtime.optional import needed
from freemvmt.storage.files import sha256_of, whole_folder
from freemvmt.storage.manifest import seal, write_sealed
from freemvmt.storage.outputs import check_free
from freemvmt.towers.average import AverageTower
from freemvmt.towers.cells import Gru, Lstm, Sru
from freemvmt.towers.model_folder import TOKENIZER, WEIGHTS
from freemvmt.towers.recurrent import RecurrentTower

Precision = Literal["fp32", "int8"]
_LIMIT = 3.0  # as in RecurrentTower


def export_onnx(model: TwoTowersModel, folder: Path, precision: Precision = "fp32") -> None:
    """Write ``folder``: a graph for each tower, tokenizer.json, and config.json, which says what is what.

    ``UserError`` where the folder is there already, or a tower is a transformer.
    """
    needed("onnx")
    if model.config.tower == "transformer":
        raise UserError("--format onnx is for towers that average or recur; export a transformer with optimum")
    check_free(folder)
    sides = {"document": (model.document_tower, model.document_head)}
    if model.config.separate_towers:
        sides["query"] = (model.query_tower, model.query_head)
    names = {side: f"{side}.onnx" if len(sides) == 2 else "model.onnx" for side in sides}
    with whole_folder(folder) as part:
        for side, (tower, head) in sides.items():
            _write(graph_of(tower, head, precision), part / names[side])
        (part / TOKENIZER).write_text(model.tokenizer.written, encoding="utf-8")
        told = {
            "two_towers_onnx": 1, "dim": model.dim, "max_length": model.config.max_length, "precision": precision,
            "tower": model.config.tower, "document": names["document"], "query": names.get("query", names["document"]),
            "add_special_tokens": False, "tokenizer": model.tokenizer.replaced, "model": _identity(model),
            "files": seal(part, [TOKENIZER, *names.values()]),
        }  # fmt: skip
        write_sealed(part / "config.json", told)


def _identity(model: TwoTowersModel) -> dict[str, str]:
    """What a bundle that was indexed with ``model`` calls it: the sums of its weights and of its tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        weights = sha256_of(Path(folder) / "model" / WEIGHTS)
    return {"id": weights, "tokenizer": hashlib.sha256(model.tokenizer.definition.encode()).hexdigest()}


def _write(graph: Any, path: Path) -> None:
    onnx = needed("onnx")
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def graph_of(tower: nn.Module, head: nn.Module, precision: Precision) -> Any:
    """The ONNX model of a tower and what stands above it."""
    build = Builder()
    rows = _rows(build, tower, precision)
    mask = build("Cast", "attention_mask", to=build.types.FLOAT)
    each = build("Unsqueeze", mask, build.ints(2))  # (texts, tokens, 1)
    count = build("Max", build("ReduceSum", mask, build.ints(1), keepdims=1), build.floats(1.0))
    mean = build("Div", _summed(build, rows, each), count)
    if isinstance(tower, RecurrentTower):
        pooled = _recurred(build, tower, rows, mask, each, mean, count)
    else:
        assert isinstance(tower, AverageTower)
        pooled = mean
        build("Div", mask, count, output="weights")
    if isinstance(head, nn.Linear):
        pooled = build("MatMul", pooled, build.weights(head.weight.T))
    build("Max", build("ReduceL2", pooled, build.ints(1), keepdims=1), build.floats(1e-12), output="length")
    build("Div", pooled, "length", output="embedding")
    dim = head.out_features if isinstance(head, nn.Linear) else tower.table.shape[1]
    outputs: dict[str, list[str | int]] = {"embedding": ["texts", int(dim)], "length": ["texts", 1]}
    if not isinstance(tower, RecurrentTower) or tower.pooling == "weighted":
        outputs["weights"] = ["texts", "tokens"]
    return build.model(outputs)


def _rows(build: Builder, tower: nn.Module, precision: Precision) -> str:
    """The rows of all tokens, (texts, tokens, width)."""
    table = tower.table
    assert isinstance(table, torch.Tensor)
    if precision == "fp32":
        return build("Gather", build.weights(table), "input_ids", axis=0)
    numbers = table.detach().cpu().numpy()
    scales = np.maximum(np.abs(numbers).max(1, keepdims=True) / 127, 1e-12).astype(np.float32)
    kept = build.constant(np.round(numbers / scales).astype(np.int8))
    rows = build("Cast", build("Gather", kept, "input_ids", axis=0), to=build.types.FLOAT)
    return build("Mul", rows, build("Gather", build.constant(scales), "input_ids", axis=0))


def _summed(build: Builder, values: str, weights: str) -> str:
    return build("ReduceSum", build("Mul", values, weights), build.ints(1), keepdims=0)


def _recurred(build: Builder, tower: RecurrentTower, rows: str, mask: str, each: str, mean: str, count: str) -> str:
    """What a recurrent tower makes of its rows, (texts, width)."""
    read = build("Transpose", build("Mul", rows, build.constant(tower.scale.numpy())), perm=[1, 0, 2])
    lengths = build("Cast", build("ReduceSum", "attention_mask", build.ints(1), keepdims=0), to=build.types.INT32)
    states, ends = _states(build, tower.cell, read, lengths)  # (tokens, texts, all hidden), (texts, all hidden)
    output = build.weights(tower.output.weight.T)
    if tower.pooling == "weighted":
        logits = build("Transpose", build("Squeeze", build("MatMul", states, output), build.ints(2)), perm=[1, 0])
        held = build("Exp", build("Clip", logits, build.number(-_LIMIT), build.number(_LIMIT)))
        weights = build("Mul", held, mask)
        total = build("Max", build("ReduceSum", weights, build.ints(1), keepdims=1), build.floats(1e-12))
        shares = build("Div", weights, total, output="weights")
        return _summed(build, rows, build("Unsqueeze", shares, build.ints(2)))
    in_order = build("Transpose", states, perm=[1, 0, 2])
    if tower.pooling == "mean":
        state = build("Div", _summed(build, in_order, each), count)
    elif tower.pooling == "last":
        state = ends
    else:
        away = build("Mul", build("Sub", each, build.floats(1.0)), build.floats(1e9))
        largest = build("ReduceMax", build("Add", in_order, away), build.ints(1), keepdims=0)
        some = build("Min", build("ReduceSum", mask, build.ints(1), keepdims=1), build.floats(1.0))
        state = build("Where", build("Cast", some, to=build.types.BOOL), largest, build.floats(0.0))
    made = build("MatMul", state, output)
    return build("Add", made, mean) if tower.residual else made


def _states(build: Builder, cell: Gru | Lstm | Sru, read: str, lengths: str) -> tuple[str, str]:
    """(the states of all directions side by side, those at the end of each way)."""
    if isinstance(cell, Sru):
        return _sru(build, cell, read, lengths)
    recurrence, ways = cell.recurrence, 2 if cell.bidirectional else 1
    kind = "GRU" if isinstance(cell, Gru) else "LSTM"
    # PyTorch orders the gates r, z, n and i, f, g, o; ONNX z, r, n and i, o, f, g.
    order = [1, 0, 2] if kind == "GRU" else [0, 3, 1, 2]
    settings: dict[str, Any] = {"hidden_size": cell.hidden, "direction": "bidirectional" if ways == 2 else "forward"}
    if kind == "GRU":
        settings["linear_before_reset"] = 1
    states, ends = read, ""
    for layer in range(recurrence.num_layers):
        w, r, b = [], [], []
        for way in range(ways):
            name = f"l{layer}" + "_reverse" * way
            parts = [_reordered(getattr(recurrence, f"weight_{part}_{name}"), order) for part in ("ih", "hh")]
            bias = [_reordered(getattr(recurrence, f"bias_{part}_{name}"), order) for part in ("ih", "hh")]
            w.append(parts[0])
            r.append(parts[1])
            b.append(np.concatenate(bias))
        weights = [build.constant(np.stack(one)) for one in (w, r, b)]
        found, last = build(kind, states, *weights, lengths, outputs=2, **settings)
        states = _side_by_side(build, found, [0, 2, 1, 3], [0, 0, ways * cell.hidden])
        ends = _side_by_side(build, last, [1, 0, 2], [0, ways * cell.hidden])
    return states, ends


def _side_by_side(build: Builder, values: str, order: list[int], shape: list[int]) -> str:
    return build("Reshape", build("Transpose", values, perm=order), build.ints(*shape))


def _reordered(weight: torch.Tensor, order: list[int]) -> Array:
    parts = weight.detach().cpu().chunk(len(order))
    found: Array = torch.cat([parts[place] for place in order]).numpy()
    return found


def _sru(build: Builder, cell: Sru, read: str, lengths: str) -> tuple[str, str]:
    ways, hidden, states, ends = 2 if cell.bidirectional else 1, cell.hidden, read, ""
    whole = build("Cast", lengths, to=build.types.INT64)
    for layer in cell.layers:
        assert isinstance(layer, nn.Linear)
        made = build("Add", build("MatMul", states, build.weights(layer.weight.T)), build.weights(layer.bias))
        found, last = [], []
        for way, values in enumerate(build("Split", made, build.ints(*[4 * hidden] * ways), outputs=ways, axis=2)):
            in_order = values if way == 0 else build("ReverseSequence", values, whole, time_axis=0, batch_axis=1)
            steps, end = build.sru_steps(in_order, hidden, lengths)
            found.append(steps if way == 0 else build("ReverseSequence", steps, whole, time_axis=0, batch_axis=1))
            last.append(end)
        states = build("Concat", *found, axis=2) if ways == 2 else found[0]
        ends = build("Concat", *last, axis=1) if ways == 2 else last[0]
    return states, ends
