"""Average and recurrent towers in NumPy: a query costs microseconds, and PyTorch is never imported.

The weights are those of a model folder. The token table is memory-mapped, so a process reads only the rows that it
uses. The vectors equal those of ``towers.average`` and ``towers.recurrent``, which train them, within 1e-5.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from freemvmt.config import LOGIT_LIMIT, ModelConfig, TowerName
from freemvmt.data.ragged import TokenArray
from freemvmt.errors import UserError
from freemvmt.storage.mapped_tensors import map_tensors
from freemvmt.towers.model_folder import do_not_fit

Vectors = NDArray[np.float32]
QueryRows = Literal["fp32", "int8"]
Tensors = dict[str, NDArray[Any]]

_BLOCK = 64  # texts that are encoded together
_ROWS = 2048  # rows of a table that become int8 together


def light_towers(
    folder: Path, files: dict[str, tuple[TowerName, ...]], config: ModelConfig, query_rows: QueryRows
) -> "dict[TowerName, LightTower]":
    """The towers of the model in ``folder`` that are no transformers, by their sides; ``files`` are its weight files.

    ``query_rows`` int8 holds the query tower's rows in a byte a number. Raises ``UserError`` when the weights do not
    fit ``config``, or the query tower is a transformer, whose rows are not held apart.
    """
    if query_rows not in get_args(QueryRows):
        raise UserError(f"--query-rows is {query_rows!r}; give fp32 or int8")
    if query_rows == "int8" and config.kind_of("query") == "transformer":
        raise UserError("--query-rows int8 is for queries that an average or a recurrence encodes; leave it out")
    towers: dict[TowerName, LightTower] = {}
    for file, sides in files.items():
        if config.kind_of(sides[0]) != "transformer":
            tensors = map_tensors(folder / file)
            towers |= {side: _Weights(folder, config, side, tensors).tower() for side in sides}
    if towers and "query" not in config.sides:
        towers["query"] = towers["document"]
    if query_rows == "int8":
        towers["query"] = towers["query"].with_int8_rows()
    if len({tower.dim for tower in towers.values()}) > 1:
        raise do_not_fit(folder)
    return towers


class LightTower:
    """A tower with its head: ``rows`` gives the token vectors of ids, ``recurrence`` weighs them; None: all alike."""

    def __init__(self, table: "Table", recurrence: "Recurrence | None", head: Vectors | None) -> None:
        self._table, self._recurrence, self._head = table, recurrence, head
        self.dim = table.width if head is None else len(head)

    def with_int8_rows(self) -> "LightTower":
        """The same tower over rows of a byte a number."""
        return LightTower(Int8Table(self._table), self._recurrence, self._head)

    def encode(self, tokens: TokenArray) -> Vectors:
        """Vectors of length 1, (texts, dim); zeros for a text without tokens."""
        sums = np.zeros((len(tokens), self._table.width), np.float32)
        for start in range(0, len(tokens), _BLOCK):
            block = tokens.slice(start, start + _BLOCK)
            _add_up(self._contributions(block), block, sums[start : start + _BLOCK])
        vectors = self._projected(sums)
        return vectors / _lengths(vectors)[:, None]

    def split(self, tokens: TokenArray) -> Vectors:
        """What each token adds to its text's vector, (tokens, dim); the sum over a text is ``encode``."""
        contributions = self._projected(self._contributions(tokens))
        sums = np.zeros((len(tokens), self.dim), np.float32)
        _add_up(contributions, tokens, sums)
        return contributions / np.repeat(_lengths(sums), tokens.lengths)[:, None]

    def _contributions(self, tokens: TokenArray) -> Vectors:
        """(tokens, width); an average needs no division, because vectors are scaled to length 1."""
        if self._recurrence is None:
            return self._table.rows(tokens.ids)
        distinct, places = np.unique(tokens.ids, return_inverse=True)
        return self._recurrence.contributions(self._table.rows(distinct), places, tokens)

    def _projected(self, vectors: Vectors) -> Vectors:
        return vectors if self._head is None else vectors @ self._head.T


class Table:
    """A token table, (vocabulary, width)."""

    def __init__(self, table: Vectors) -> None:
        self._table = table
        self.size, self.width = table.shape

    def rows(self, ids: NDArray[Any]) -> Vectors:
        """The rows of ``ids``, float32; ``UserError`` for an id without a row."""
        return _take(self._table, ids)


class Int8Table(Table):
    """A token table in a byte a number, and one scale a row: the largest number of a row becomes 127 or -127."""

    def __init__(self, table: Table) -> None:
        self.size, self.width = table.size, table.width
        self._numbers = np.empty((table.size, table.width), np.int8)
        self._scales = np.empty((table.size, 1), np.float32)
        for start in range(0, table.size, _ROWS):
            rows = table.rows(np.arange(start, min(start + _ROWS, table.size)))
            scales = np.maximum(np.abs(rows).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
            self._scales[start : start + _ROWS] = scales
            self._numbers[start : start + _ROWS] = np.rint(rows / scales)

    def rows(self, ids: NDArray[Any]) -> Vectors:
        """As ``Table.rows``."""
        rows: Vectors = _take(self._numbers, ids) * _take(self._scales, ids)
        return rows


def _take(table: NDArray[Any], ids: NDArray[Any]) -> NDArray[Any]:
    try:
        return table.take(ids, axis=0)
    except IndexError as error:
        raise UserError("the tokenizer makes ids that the token table has no rows for; save the model again") from error


class Recurrence:
    """A GRU or an LSTM with its output: see ``towers.recurrent`` for the formulas, ``towers.cells`` for the cells."""

    def __init__(self, config: ModelConfig, weights: "_Weights", width: int) -> None:
        self._pooling, self._residual = config.pooling, config.residual
        self._directions = 1 + config.bidirectional
        gates = config.hidden * (3 if config.cell == "gru" else 4)
        self._cell = _gru if config.cell == "gru" else _lstm
        self._layers = []
        inputs = width
        for layer in range(config.layers):
            directions = []
            for suffix in ("", "_reverse")[: self._directions]:
                name = f"tower.cell.recurrence.{{}}_l{layer}{suffix}"
                directions.append(
                    (
                        weights.copy(name.format("weight_ih"), gates, inputs).T,
                        weights.copy(name.format("bias_ih"), gates),
                        np.ascontiguousarray(weights.copy(name.format("weight_hh"), gates, config.hidden).T),
                        weights.copy(name.format("bias_hh"), gates),
                    )
                )
            self._layers.append(directions)
            inputs = config.hidden * self._directions
        outputs = {"weighted": 1, "mean": width, "both": 1 + width}[config.pooling]
        output = weights.copy("tower.output.weight", outputs, inputs)
        self._to_weight = output[0]
        self._to_vector = output[1:] if config.pooling == "both" else output
        self._scale = weights.copy("tower.scale")

    def contributions(self, rows: Vectors, places: NDArray[np.int64], tokens: TokenArray) -> Vectors:
        """What each token adds to its text's vector, (tokens, width); ``places`` are the tokens' rows in ``rows``."""
        states = self._states(rows * self._scale, places, tokens)
        vectors = rows[places]
        text_of_token = np.repeat(np.arange(len(tokens)), tokens.lengths)
        per_token = (1 / tokens.lengths[text_of_token]).astype(np.float32)[:, None]
        if self._pooling == "mean":
            additions = states @ self._to_vector.T
            return (additions + vectors if self._residual else additions) * per_token
        weights = np.exp((states @ self._to_weight).clip(-LOGIT_LIMIT, LOGIT_LIMIT))
        totals = np.bincount(text_of_token, weights, len(tokens))
        vectors *= (weights / totals[text_of_token]).astype(np.float32)[:, None]
        if self._pooling == "both":
            vectors += (states @ self._to_vector.T) * per_token
        return vectors

    def _states(self, rows: Vectors, places: NDArray[np.int64] | None, tokens: TokenArray) -> Vectors:
        """The states of the last layer, all directions side by side, (tokens, directions * hidden)."""
        for layer in self._layers:
            states = []
            for (input_weight, input_bias, *state_weights), positions in zip(layer, _positions(tokens), strict=False):
                inputs = rows @ input_weight + input_bias
                states.append(self._cell(inputs if places is None else inputs[places], positions, *state_weights))
            rows, places = np.concatenate(states, axis=1), None  # from here on each token has a row of its own
        return rows


Positions = list[NDArray[np.int64]]  # of the tokens that are read together, step by step; longer texts come first


def _positions(tokens: TokenArray) -> Iterator[Positions]:
    """The positions forwards, then backwards."""
    order = np.argsort(-tokens.lengths, kind="stable")
    lengths, starts = tokens.lengths[order], tokens.offsets[order]
    counts = np.searchsorted(-lengths, -np.arange(lengths.max(initial=0)), side="left").tolist()
    yield [starts[:count] + step for step, count in enumerate(counts)]
    yield [(starts + lengths - 1)[:count] - step for step, count in enumerate(counts)]


def _gru(inputs: Vectors, positions: Positions, weight: Vectors, bias: Vectors) -> Vectors:
    """The states of a GRU, (tokens, hidden); ``inputs`` (tokens, 3 hidden) are those of r, z and n."""
    hidden = len(weight)
    states = np.empty((len(inputs), hidden), np.float32)
    state = np.zeros((len(positions[0]) if positions else 0, hidden), np.float32)
    for now in positions:
        state, own = state[: len(now)], inputs[now]
        products = state @ weight + bias
        gates = _sigmoid(own[:, : 2 * hidden] + products[:, : 2 * hidden])
        candidate = np.tanh(own[:, 2 * hidden :] + gates[:, :hidden] * products[:, 2 * hidden :])
        states[now] = state = candidate + gates[:, hidden:] * (state - candidate)
    return states


def _lstm(inputs: Vectors, positions: Positions, weight: Vectors, bias: Vectors) -> Vectors:
    """The states of an LSTM, (tokens, hidden); ``inputs`` (tokens, 4 hidden) are those of i, f, g and o."""
    hidden = len(weight)
    states = np.empty((len(inputs), hidden), np.float32)
    state = memory = np.zeros((len(positions[0]) if positions else 0, hidden), np.float32)
    for now in positions:
        state, memory = state[: len(now)], memory[: len(now)]
        gates = inputs[now] + state @ weight + bias
        into, kept, out = (_sigmoid(gates[:, gate * hidden : (gate + 1) * hidden]) for gate in (0, 1, 3))
        memory = kept * memory + into * np.tanh(gates[:, 2 * hidden : 3 * hidden])
        states[now] = state = out * np.tanh(memory)
    return states


def _sigmoid(values: Vectors) -> Vectors:
    sigmoid: Vectors = np.tanh(values * np.float32(0.5)) * np.float32(0.5) + np.float32(0.5)
    return sigmoid


def _add_up(contributions: Vectors, tokens: TokenArray, sums: Vectors) -> None:
    """Write the sum of each text's contributions into ``sums`` (texts, dim), which holds zeros."""
    for row, (start, stop) in enumerate(pairwise(tokens.offsets.tolist())):
        if stop > start:
            np.add.reduce(contributions[start:stop], axis=0, out=sums[row])


def _lengths(vectors: Vectors) -> Vectors:
    """The length of each vector, at least 1e-12; ``UserError`` if one is not finite."""
    lengths: Vectors = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise UserError("the model's weights hold numbers that are not finite; save the model again")
    return np.maximum(lengths, np.float32(1e-12))


class _Weights:
    """The tensors of one side, whose shapes are checked when they are read."""

    def __init__(self, folder: Path, config: ModelConfig, side: TowerName, tensors: Tensors) -> None:
        self._folder, self._config, self._side, self._tensors = folder, config, side, tensors

    def tower(self) -> LightTower:
        """The tower of these weights."""
        table = self._tensors.get("document.table" if self._config.shared_table else f"{self._side}.table")
        if table is None or table.ndim != 2 or not table.size or table.dtype != np.float32:
            raise do_not_fit(self._folder)
        width, config = table.shape[1], self._config
        recurrent = config.kind_of(self._side) == "recurrent"
        recurrence = Recurrence(config, self, width) if recurrent else None
        head = None if config.dim in (None, width) else self.copy("head", config.dim, width)
        return LightTower(Table(table), recurrence, head)

    def copy(self, name: str, *shape: int) -> Vectors:
        """The tensor ``name`` in memory; ``UserError`` unless it has this shape and is float32."""
        tensor = self._tensors.get(f"{self._side}.{name}")
        if tensor is None or tensor.shape != shape or tensor.dtype != np.float32:
            raise do_not_fit(self._folder)
        return np.array(tensor)
