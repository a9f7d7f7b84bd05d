"""Texts of different lengths, packed for a recurrence step by step, without padding.

The texts are sorted, longest first. The packed array holds the first tokens of all texts, then the second tokens of
those that have one, and so on. So a step is a slice, and a text that has ended is no longer part of it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Order:
    """A reading direction: token ``i`` of the flat array is packed at ``places[i]``; ``tokens`` is the inverse."""

    places: Tensor  # (tokens,) int64
    tokens: Tensor


@dataclass(frozen=True, eq=False)
class Packing:
    """``steps[t]`` is the number of texts that have a token at step t; it is the same in both directions."""

    steps: Tensor  # (longest,) int64, on the CPU
    forwards: Order
    backwards: Order

    @classmethod
    def of(cls, lengths: NDArray[np.int64], device: torch.device) -> "Packing":
        """The packing of texts with these ``lengths``, which follow each other in a flat array."""
        longest_first = np.argsort(-lengths, kind="stable")
        rank = np.empty(len(lengths), np.int64)
        rank[longest_first] = np.arange(len(lengths))
        # A text has a step t if it is longer than t.
        steps = len(lengths) - np.searchsorted(np.sort(lengths), np.arange(lengths.max(initial=0)), side="right")
        starts = np.cumsum(steps) - steps
        text = np.repeat(np.arange(len(lengths)), lengths)
        step = np.arange(len(text)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        orders = []
        for position in (step, lengths[text] - 1 - step):
            places = starts[position] + rank[text]
            tokens = np.empty_like(places)
            tokens[places] = np.arange(len(places))
            orders.append(Order(torch.from_numpy(places).to(device), torch.from_numpy(tokens).to(device)))
        return cls(torch.from_numpy(steps), *orders)

    def orders(self, bidirectional: bool) -> list[Order]:
        """The directions in which a recurrence reads."""
        return [self.forwards, self.backwards] if bidirectional else [self.forwards]
