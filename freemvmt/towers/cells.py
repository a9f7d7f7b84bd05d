"""Recurrences over the tokens of texts: GRU and LSTM.

A cell takes the rows that a batch uses (used, width), the position of each token's row in them (tokens,), and a
packing. It returns the states of each direction, (tokens, hidden), in the order in which that direction reads.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from freemvmt.towers.packing import Packing
from freemvmt.towers.sparse_rows import gather_rows, permute_rows


class Lstm(nn.Module):
    """PyTorch's LSTM, on packed texts."""

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.precision = torch.float32  # of training on a GPU
        self.recurrence = nn.LSTM(
            width, hidden, layers, bidirectional=bidirectional, dropout=dropout if layers > 1 else 0.0
        )

    def forward(self, rows: Tensor, places: Tensor, packing: Packing) -> list[Tensor]:
        """(tokens, hidden) of each direction."""
        precision = self.precision if self.training and rows.is_cuda else torch.float32
        return packed_states(self.recurrence, rows, places, packing, precision)


def packed_states(
    recurrence: nn.GRU | nn.LSTM, rows: Tensor, places: Tensor, packing: Packing, precision: torch.dtype
) -> list[Tensor]:
    """The states of each direction, (tokens, hidden) float32, by PyTorch's kernels: cuDNN's on a GPU."""
    inputs = gather_rows(rows, places[packing.forwards.tokens]).to(precision)
    sequence = PackedSequence(inputs, packing.steps)
    if precision == torch.float32:
        outputs, _ = recurrence(sequence)
    else:
        weights = {name: weight.to(precision) for name, weight in recurrence.named_parameters()}
        outputs, _ = functional_call(recurrence, weights, (sequence,))
    # The states of both directions are in the order of the forward one.
    states = outputs.data.float()
    if not recurrence.bidirectional:
        return [states]
    forwards, backwards = packing.forwards, packing.backwards
    to_forwards, to_backwards = forwards.places[backwards.tokens], backwards.places[forwards.tokens]
    hidden = recurrence.hidden_size
    return [states[:, :hidden], permute_rows(states[:, hidden:], to_forwards, to_backwards)]


def in_text_order(states: list[Tensor], packing: Packing) -> Tensor:
    """The states of all directions, concatenated, (tokens, directions * hidden), in the order of the flat array."""
    orders = packing.orders(len(states) == 2)
    return torch.cat(
        [permute_rows(state, order.places, order.tokens) for state, order in zip(states, orders, strict=True)], 1
    )


class Gru(nn.Module):
    """A GRU with PyTorch's weights. On a GPU it is PyTorch's own, by cuDNN.

    On a CPU all steps are one autograd function, where PyTorch records a dozen nodes a step. In the first layer the
    product of the inputs with their matrix depends on the token alone, so it is computed once for each distinct token.
    """

    def __init__(self, width: int, hidden: int, layers: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        self.hidden, self.bidirectional, self.dropout = hidden, bidirectional, dropout
        self.precision = torch.float32  # of matrix products in training
        self.recurrence = nn.GRU(
            width, hidden, layers, bidirectional=bidirectional, dropout=dropout if layers > 1 else 0.0
        )

    def forward(self, rows: Tensor, places: Tensor, packing: Packing) -> list[Tensor]:
        """(tokens, hidden) of each direction."""
        precision = self.precision if self.training else torch.float32
        if rows.is_cuda:
            return packed_states(self.recurrence, rows, places, packing, precision)
        states: list[Tensor] = []
        for layer in range(self.recurrence.num_layers):
            if layer:
                rows = F.dropout(in_text_order(states, packing), self.dropout, self.training)
            states = []
            for direction, order in enumerate(packing.orders(self.bidirectional)):
                weight, bias = self._weights(layer, direction, "ih")
                row_inputs = F.linear(rows.to(precision), weight.to(precision), bias.to(precision)).float()
                # From the second layer on, each token has a row of its own.
                inputs = (
                    permute_rows(row_inputs, order.tokens, order.places)
                    if layer
                    else gather_rows(row_inputs, places[order.tokens])
                )
                weights = self._weights(layer, direction, "hh")
                states.append(_GruSteps.apply(inputs, *weights, packing.steps, precision))
        return states

    def _weights(self, layer: int, direction: int, kind: str) -> tuple[Tensor, Tensor]:
        name = f"{kind}_l{layer}" + "_reverse" * direction
        return getattr(self.recurrence, f"weight_{name}"), getattr(self.recurrence, f"bias_{name}")


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
