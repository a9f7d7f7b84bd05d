"""Recurrences over the tokens of texts: LSTM, GRU, and SRU, which has no hidden-to-hidden matrix.

A cell takes the rows that a batch uses (used, width), the position of each token's row in them (tokens,), and a
packing. It returns the states of each direction, (tokens, hidden), in the order in which that direction reads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from freemvmt.towers.packing import Packing
from freemvmt.towers.sparse_rows import gather_rows, permute_rows


class Lstm(nn.Module):
    """PyTorch's LSTM, on packed texts."""

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        layer_dropout = dropout if layers > 1 else 0.0
        self.recurrence = nn.LSTM(width, hidden, layers, bidirectional=bidirectional, dropout=layer_dropout)
        self.hidden, self.bidirectional = hidden, bidirectional

    def forward(self, rows: Tensor, places: Tensor, packing: Packing) -> list[Tensor]:
        """(tokens, hidden) of each direction."""
        inputs = gather_rows(rows, places[packing.forwards.tokens])
        # The states of both directions are in the order of the forward one.
        states = self.recurrence(PackedSequence(inputs, packing.steps))[0].data
        if not self.bidirectional:
            return [states]
        forwards, backwards = packing.forwards, packing.backwards
        to_forwards, to_backwards = forwards.places[backwards.tokens], backwards.places[forwards.tokens]
        return [states[:, : self.hidden], permute_rows(states[:, self.hidden :], to_forwards, to_backwards)]


class _StackedCell(nn.Module):
    """Layers of recurrences that multiply their inputs with one matrix before the steps.

    In the first layer the product depends on the token alone, so it is computed once for each distinct token.
    """

    def __init__(self, hidden: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.hidden, self.bidirectional, self.dropout = hidden, bidirectional, dropout
        self.precision = torch.float32  # of matrix products in training

    def _current_precision(self) -> torch.dtype:
        return self.precision if self.training else torch.float32

    def _product(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``rows`` times ``weight``, plus ``bias``, float32."""
        precision = self._current_precision()
        return F.linear(rows.to(precision), weight.to(precision), bias.to(precision)).float()

    def _layers(self) -> int:
        raise NotImplementedError

    def _step_inputs(self, layer: int, rows: Tensor) -> list[Tensor]:
        """For each direction, what its steps need of each row, (rows, any)."""
        raise NotImplementedError

    def _run(self, layer: int, direction: int, inputs: Tensor, steps: Tensor) -> Tensor:
        """The states, (tokens, hidden), from the step inputs of the tokens, both in reading order."""
        raise NotImplementedError

    def forward(self, rows: Tensor, places: Tensor, packing: Packing) -> list[Tensor]:
        """(tokens, hidden) of each direction."""
        orders = packing.orders(self.bidirectional)
        states: list[Tensor] = []
        for layer in range(self._layers()):
            if layer:
                rows = F.dropout(in_text_order(states, packing), self.dropout, self.training)
            states = []
            for direction, (row_inputs, order) in enumerate(zip(self._step_inputs(layer, rows), orders, strict=True)):
                # From the second layer on, each token has a row of its own.
                inputs = (
                    permute_rows(row_inputs, order.tokens, order.places)
                    if layer
                    else gather_rows(row_inputs, places[order.tokens])
                )
                states.append(self._run(layer, direction, inputs, packing.steps))
        return states


def in_text_order(states: list[Tensor], packing: Packing) -> Tensor:
    """The states of all directions, concatenated, (tokens, directions * hidden), in the order of the flat array."""
    orders = packing.orders(len(states) == 2)
    return torch.cat(
        [permute_rows(state, order.places, order.tokens) for state, order in zip(states, orders, strict=True)], 1
    )


class Gru(_StackedCell):
    """A GRU with PyTorch's weights. All steps are one autograd function, where PyTorch records a dozen nodes a step."""

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__(hidden, bidirectional, dropout)
        self.recurrence = nn.GRU(width, hidden, layers, bidirectional=bidirectional)

    def _layers(self) -> int:
        return self.recurrence.num_layers

    def _weights(self, layer: int, direction: int, kind: str) -> tuple[Tensor, Tensor]:
        name = f"{kind}_l{layer}" + "_reverse" * direction
        return getattr(self.recurrence, f"weight_{name}"), getattr(self.recurrence, f"bias_{name}")

    def _step_inputs(self, layer: int, rows: Tensor) -> list[Tensor]:
        return [
            self._product(rows, *self._weights(layer, direction, "ih")) for direction in range(1 + self.bidirectional)
        ]

    def _run(self, layer: int, direction: int, inputs: Tensor, steps: Tensor) -> Tensor:
        weights = self._weights(layer, direction, "hh")
        states: Tensor = _GruSteps.apply(inputs, *weights, steps, self._current_precision())
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
        gates, candidates, recurrent = inputs.new_empty(len(inputs), 2 * hidden), states.clone(), states.clone()
        previous = inputs.new_zeros(sizes[0] if sizes else 0, hidden)
        weight = weight.to(precision)
        start = 0
        for size in sizes:
            now = slice(start, start + size)
            previous = previous[:size]
            products = (previous.to(precision) @ weight.T).float().add_(bias)
            torch.add(inputs[now, : 2 * hidden], products[:, : 2 * hidden], out=gates[now]).sigmoid_()
            recurrent[now] = products[:, 2 * hidden :]
            torch.addcmul(inputs[now, 2 * hidden :], gates[now, :hidden], recurrent[now], out=candidates[now]).tanh_()
            previous = torch.lerp(candidates[now], previous, gates[now, hidden:], out=states[now])
            start += size
        ctx.save_for_backward(weight, states, gates, candidates, recurrent)
        ctx.sizes = sizes
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        weight, states, gates, candidates, recurrent = ctx.saved_tensors
        hidden = weight.shape[1]
        inputs_grad = states.new_empty(len(states), 3 * hidden)
        # The gradient of U h + b equals that of the inputs, but for the part of n, which is multiplied by r.
        products_grad = states.new_empty(len(states), 3 * hidden)
        previous = torch.zeros_like(states)  # the state before each step
        stop, carried_grad = len(states), gradient[:0]
        for step in reversed(range(len(ctx.sizes))):
            size = ctx.sizes[step]
            now = slice(stop - size, stop)
            stop -= size
            if step:
                previous[now] = states[stop - ctx.sizes[step - 1] :][:size]
            state_grad = gradient[now].clone()
            state_grad[: len(carried_grad)] += carried_grad
            reset, update = gates[now, :hidden], gates[now, hidden:]
            update_grad = (previous[now] - candidates[now]).mul_(state_grad).mul_(update).mul_(1 - update)
            candidate_grad = (state_grad - state_grad * update).mul_(1 - candidates[now] * candidates[now])
            products_grad[now, hidden : 2 * hidden] = update_grad
            torch.mul(candidate_grad, reset, out=products_grad[now, 2 * hidden :])
            torch.mul(products_grad[now, 2 * hidden :], recurrent[now] * (1 - reset), out=products_grad[now, :hidden])
            inputs_grad[now, : 2 * hidden] = products_grad[now, : 2 * hidden]
            inputs_grad[now, 2 * hidden :] = candidate_grad
            carried_grad = state_grad.mul_(update).add_(products_grad[now].to(weight.dtype) @ weight)
        weight_grad = (products_grad.to(weight.dtype).T @ previous.to(weight.dtype)).float()
        return inputs_grad, weight_grad, products_grad.sum(0), None, None


class Sru(_StackedCell):
    """The simple recurrent unit (Lei et al. 2017, Training RNNs as Fast as CNNs): its gates depend on the input alone.

        c_t = f_t c_(t-1) + (1 - f_t) W x_t        f_t = sigmoid(W_f x_t + b_f)
        h_t = r_t tanh(c_t) + (1 - r_t) W_x x_t    r_t = sigmoid(W_r x_t + b_r)

    There is no matrix product between the steps.
    """

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__(hidden, bidirectional, dropout)
        size = hidden * (1 + bidirectional)
        self.layers = nn.ModuleList(nn.Linear(size if layer else width, 4 * size) for layer in range(layers))

    def _layers(self) -> int:
        return len(self.layers)

    def _step_inputs(self, layer: int, rows: Tensor) -> list[Tensor]:
        linear = self.layers[layer]
        assert isinstance(linear, nn.Linear)
        products = self._product(rows, linear.weight, linear.bias).view(len(rows), -1, 4 * self.hidden)
        return [
            torch.cat([product[:, : 2 * self.hidden].sigmoid(), product[:, 2 * self.hidden :]], 1)
            for product in products.unbind(1)
        ]

    def _run(self, layer: int, direction: int, inputs: Tensor, steps: Tensor) -> Tensor:
        states: Tensor = _SruSteps.apply(inputs, steps)
        return states


class _SruSteps(torch.autograd.Function):
    """The states h of an SRU over the steps of a packing, (tokens, hidden), from c = 0.

    ``inputs`` (tokens, 4 hidden) holds f, r, W x and W_x x, step by step.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, steps: Tensor) -> Tensor:
        sizes, hidden = steps.tolist(), inputs.shape[1] // 4
        cells, states = inputs.new_empty(len(inputs), hidden), inputs.new_empty(len(inputs), hidden)
        previous = inputs.new_zeros(sizes[0] if sizes else 0, hidden)
        start = 0
        for size in sizes:
            now = slice(start, start + size)
            forget, reset, value, skip = inputs[now].chunk(4, 1)
            previous = torch.lerp(value, previous[:size], forget, out=cells[now])
            torch.lerp(skip, previous.tanh(), reset, out=states[now])
            start += size
        ctx.save_for_backward(inputs, cells)
        ctx.sizes = sizes
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        inputs, cells = ctx.saved_tensors
        inputs_grad = torch.empty_like(inputs)
        stop, carried_grad = len(inputs), gradient[:0]
        for step in reversed(range(len(ctx.sizes))):
            size = ctx.sizes[step]
            now = slice(stop - size, stop)
            stop -= size
            forget, reset, value, skip = inputs[now].chunk(4, 1)
            forget_grad, reset_grad, value_grad, skip_grad = inputs_grad[now].chunk(4, 1)
            state_grad = gradient[now]
            tanh_cell = cells[now].tanh()
            torch.mul(tanh_cell - skip, state_grad, out=reset_grad)
            cell_grad = state_grad * reset
            torch.sub(state_grad, cell_grad, out=skip_grad)
            cell_grad.addcmul_(cell_grad, tanh_cell.square_(), value=-1)  # through tanh
            cell_grad[: len(carried_grad)] += carried_grad
            carried_grad = cell_grad * forget
            torch.sub(cell_grad, carried_grad, out=value_grad)
            if step:
                torch.sub(cells[stop - ctx.sizes[step - 1] :][:size], value, out=forget_grad)
            else:
                torch.neg(value, out=forget_grad)
            forget_grad *= cell_grad
        return inputs_grad, None
