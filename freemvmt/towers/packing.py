"""Texts of different lengths, step by step and without padding.

The texts are sorted, longest first; then come the first tokens of all, the second tokens of those that have one, and so
on: a step is a slice, and the texts that are at their end are simply no longer in it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Order:
    """One way of reading: token ``i`` of the flat array is read at ``places[i]``; ``tokens`` is the inverse of that."""

    places: Tensor  # (tokens,) int64
    tokens: Tensor


@dataclass(frozen=True, eq=False)
class Packing:
    """``steps[t]`` texts have a token at step t, whether texts are read from their beginning or from their end."""

    steps: Tensor  # (longest,) int64, on the CPU
    forwards: Order
    backwards: Order

    @classmethod
    def of(cls, lengths: NDArray[np.int64], device: torch.device) -> "Packing":
        """The packing of texts that lie one behind the other in a flat array."""
        longest_first = np.argsort(-lengths, kind="stable")
        rank = np.empty(len(lengths), np.int64)
        rank[longest_first] = np.arange(len(lengths))
        # As many texts have a step t as are longer than t.
        steps = len(lengths) - np.searchsorted(np.sort(lengths), np.arange(lengths.max(initial=0)), side="right")
        starts = np.cumsum(steps) - steps
        text = np.repeat(np.arange(len(lengths)), lengths)
        step = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        orders = []
        for read in (step, lengths[text] - 1 - step):
            places = starts[read] + rank[text]
            tokens = np.empty_like(places)
            tokens[places] = np.arange(len(places))
            orders.append(Order(torch.from_numpy(places).to(device), torch.from_numpy(tokens).to(device)))
        return cls(torch.from_numpy(steps), *orders)

    def orders(self, bidirectional: bool) -> list[Order]:
        """The ways in which a recurrence reads."""
        return [self.forwards, self.backwards] if bidirectional else [self.forwards]
