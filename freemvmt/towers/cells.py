"""Recurrences over the tokens of texts: GRU and LSTM, and one that has no hidden-to-hidden matrix.

A cell takes the rows that a batch uses (used, width), where each token's row stands in them (tokens,), and a packing;
it gives the states of each direction, (tokens, hidden), in the order in which that direction reads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from freemvmt.towers.packing import Packing
from freemvmt.towers.sparse_rows import handed_out, permuted


class Lstm(nn.Module):
    """PyTorch's own, on packed texts."""

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.recurrence = nn.LSTM(width, hidden, layers, bidirectional=bidirectional, dropout=between)
        self.hidden, self.bidirectional = hidden, bidirectional

    def forward(self, rows: Tensor, places: Tensor, packing: Packing) -> list[Tensor]:
        """(tokens, hidden) of each direction."""
        read = handed_out(rows, places[packing.forwards.tokens])
        states = self.recurrence(PackedSequence(read, packing.steps))[0].data  # both in the order of the forwards one
        if not self.bidirectional:
            return [states]
        forwards, backwards = packing.forwards, packing.backwards
        other, back = forwards.places[backwards.tokens], backwards.places[forwards.tokens]
        return [states[:, : self.hidden], permuted(states[:, self.hidden :], other, back)]


class _Stacked(nn.Module):
    """Layers of recurrences whose inputs go through one matrix before the steps: in the first layer that depends on a
    token alone, so it is done once for each different token of a batch."""

    def __init__(self, hidden: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.hidden, self.bidirectional, self.dropout = hidden, bidirectional, dropout
        self.precision = torch.float32  # of matrix products in training

    def _precision_now(self) -> torch.dtype:
        return self.precision if self.training else torch.float32

    def _product(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``rows`` times ``weight`` and ``bias``, float32."""
        precision = self._precision_now()
        return F.linear(rows.to(precision), weight.to(precision), bias.to(precision)).float()

    def _layers(self) -> int:
        raise NotImplementedError

    def _prepared(self, layer: int, rows: Tensor) -> list[Tensor]:
        """What the steps of each direction need of a row, (rows, any)."""
        raise NotImplementedError

    def _run(self, layer: int, direction: int, read: Tensor, steps: Tensor) -> Tensor:
        """The states, (tokens, hidden), from what was prepared, in the order of reading."""
        raise NotImplementedError

    def forward(self, rows: Tensor, places: Tensor, packing: Packing) -> list[Tensor]:
        """(tokens, hidden) of each direction."""
        orders = packing.orders(self.bidirectional)
        states: list[Tensor] = []
        for layer in range(self._layers()):
            if layer:
                rows = F.dropout(in_text_order(states, packing), self.dropout, self.training)
            states = []
            for direction, (ready, order) in enumerate(zip(self._prepared(layer, rows), orders, strict=True)):
                # From the second layer on, each token has a row of its own.
                read = permuted(ready, order.tokens, order.places) if layer else handed_out(ready, places[order.tokens])
                states.append(self._run(layer, direction, read, packing.steps))
        return states


def in_text_order(states: list[Tensor], packing: Packing) -> Tensor:
    """The states of all directions side by side, (tokens, directions * hidden), in the order of the flat array."""
    orders = packing.orders(len(states) == 2)
    return torch.cat([permuted(one, order.places, order.tokens) for one, order in zip(states, orders, strict=True)], 1)


class Gru(_Stacked):
    """PyTorch's GRU and its weights, computed otherwise: the steps in one function with its gradient, where autograd
    would keep a dozen nodes a step."""

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__(hidden, bidirectional, dropout)
        self.recurrence = nn.GRU(width, hidden, layers, bidirectional=bidirectional)

    def _layers(self) -> int:
        return self.recurrence.num_layers

    def _weights(self, layer: int, direction: int, kind: str) -> tuple[Tensor, Tensor]:
        name = f"{kind}_l{layer}" + "_reverse" * direction
        return getattr(self.recurrence, f"weight_{name}"), getattr(self.recurrence, f"bias_{name}")

    def _prepared(self, layer: int, rows: Tensor) -> list[Tensor]:
        return [self._product(rows, *self._weights(layer, way, "ih")) for way in range(1 + self.bidirectional)]

    def _run(self, layer: int, direction: int, read: Tensor, steps: Tensor) -> Tensor:
        weights = self._weights(layer, direction, "hh")
        states: Tensor = _GruSteps.apply(read, *weights, steps, self._precision_now())
        return states


class _GruSteps(torch.autograd.Function):
    """The states of a GRU over the steps of a packing, (tokens, hidden), from 0.

        r, z = sigmoid(i_r + U_r h + b_r), sigmoid(i_z + U_z h + b_z)      n = tanh(i_n + r (U_n h + b_n))
        h' = (1 - z) n + z h

    ``inputs`` (tokens, 3 hidden) holds i_r, i_z, i_n, step by step; ``weight`` (3 hidden, hidden) is U, ``bias`` b.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, steps: Tensor, precision: torch.dtype
    ) -> Tensor:
        sizes, hidden = steps.tolist(), weight.shape[1]
        states = inputs.new_empty(len(inputs), hidden)
        gates, fresh, recalled = inputs.new_empty(len(inputs), 2 * hidden), states.clone(), states.clone()
        before = inputs.new_zeros(sizes[0] if sizes else 0, hidden)
        weight = weight.to(precision)
        start = 0
        for size in sizes:
            now = slice(start, start + size)
            before = before[:size]
            known = (before.to(precision) @ weight.T).float().add_(bias)
            torch.add(inputs[now, : 2 * hidden], known[:, : 2 * hidden], out=gates[now]).sigmoid_()
            recalled[now] = known[:, 2 * hidden :]
            torch.addcmul(inputs[now, 2 * hidden :], gates[now, :hidden], recalled[now], out=fresh[now]).tanh_()
            before = torch.lerp(fresh[now], before, gates[now, hidden:], out=states[now])
            start += size
        ctx.save_for_backward(weight, states, gates, fresh, recalled)
        ctx.sizes = sizes
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        weight, states, gates, fresh, recalled = ctx.saved_tensors
        hidden = weight.shape[1]
        of_inputs = states.new_empty(len(states), 3 * hidden)
        of_known = states.new_empty(len(states), 3 * hidden)  # of U h + b: the same but for n, which r has scaled
        earlier = torch.zeros_like(states)  # the state that each step began with
        stop, carried = len(states), gradient[:0]
        for step in reversed(range(len(ctx.sizes))):
            size = ctx.sizes[step]
            now = slice(stop - size, stop)
            stop -= size
            if step:
                earlier[now] = states[stop - ctx.sizes[step - 1] :][:size]
            slope = gradient[now].clone()
            slope[: len(carried)] += carried
            reset, update = gates[now, :hidden], gates[now, hidden:]
            of_update = (earlier[now] - fresh[now]).mul_(slope).mul_(update).mul_(1 - update)
            of_fresh = (slope - slope * update).mul_(1 - fresh[now] * fresh[now])
            of_known[now, hidden : 2 * hidden] = of_update
            torch.mul(of_fresh, reset, out=of_known[now, 2 * hidden :])
            torch.mul(of_known[now, 2 * hidden :], recalled[now] * (1 - reset), out=of_known[now, :hidden])
            of_inputs[now, : 2 * hidden] = of_known[now, : 2 * hidden]
            of_inputs[now, 2 * hidden :] = of_fresh
            carried = slope.mul_(update).add_(of_known[now].to(weight.dtype) @ weight)
        of_weight = (of_known.to(weight.dtype).T @ earlier.to(weight.dtype)).float()
        return of_inputs, of_weight, of_known.sum(0), None, None


class Sru(_Stacked):
    """The simple recurrent unit (Lei et al. 2017, Training RNNs as Fast as CNNs): gates that see only the input.

        c_t = f_t c_(t-1) + (1 - f_t) W x_t        f_t = sigmoid(W_f x_t + b_f)
        h_t = r_t tanh(c_t) + (1 - r_t) W_x x_t    r_t = sigmoid(W_r x_t + b_r)

    No matrix is left between the steps.
    """

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__(hidden, bidirectional, dropout)
        size = hidden * (1 + bidirectional)
        self.layers = nn.ModuleList(nn.Linear(size if layer else width, 4 * size) for layer in range(layers))

    def _layers(self) -> int:
        return len(self.layers)

    def _prepared(self, layer: int, rows: Tensor) -> list[Tensor]:
        of_layer = self.layers[layer]
        assert isinstance(of_layer, nn.Linear)
        made = self._product(rows, of_layer.weight, of_layer.bias).view(len(rows), -1, 4 * self.hidden)
        return [
            torch.cat([one[:, : 2 * self.hidden].sigmoid(), one[:, 2 * self.hidden :]], 1) for one in made.unbind(1)
        ]

    def _run(self, layer: int, direction: int, read: Tensor, steps: Tensor) -> Tensor:
        states: Tensor = _SruSteps.apply(read, steps)
        return states


class _SruSteps(torch.autograd.Function):
    """The states h of an SRU over the steps of a packing, (tokens, hidden), from c = 0.

    ``read`` (tokens, 4 hidden) holds f, r, W x and W_x x, step by step.
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, steps: Tensor) -> Tensor:
        sizes, hidden = steps.tolist(), read.shape[1] // 4
        cells, states = read.new_empty(len(read), hidden), read.new_empty(len(read), hidden)
        before = read.new_zeros(sizes[0] if sizes else 0, hidden)
        start = 0
        for size in sizes:
            now = slice(start, start + size)
            forget, reset, value, skip = read[now].chunk(4, 1)
            before = torch.lerp(value, before[:size], forget, out=cells[now])
            torch.lerp(skip, before.tanh(), reset, out=states[now])
            start += size
        ctx.save_for_backward(read, cells)
        ctx.sizes = sizes
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        read, cells = ctx.saved_tensors
        found = torch.empty_like(read)
        stop, carried = len(read), gradient[:0]
        for step in reversed(range(len(ctx.sizes))):
            size = ctx.sizes[step]
            now = slice(stop - size, stop)
            stop -= size
            forget, reset, value, skip = read[now].chunk(4, 1)
            of_forget, of_reset, of_value, of_skip = found[now].chunk(4, 1)
            above = gradient[now]
            known = cells[now].tanh()
            torch.mul(known - skip, above, out=of_reset)
            inner = above * reset
            torch.sub(above, inner, out=of_skip)
            inner.addcmul_(inner, known.square_(), value=-1)  # through tanh
            inner[: len(carried)] += carried
            carried = inner * forget
            torch.sub(inner, carried, out=of_value)
            if step:
                torch.sub(cells[stop - ctx.sizes[step - 1] :][:size], value, out=of_forget)
            else:
                torch.neg(value, out=of_forget)
            of_forget *= inner
        return found, None
