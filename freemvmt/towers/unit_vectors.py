"""Vectors scaled to length 1. Their gradient takes four passes over memory; that of ``F.normalize`` takes a dozen."""

from typing import Any

import torch
from torch import Tensor

_SMALLEST = 1e-12  # of a length to divide by, as in ``F.normalize``


def unit_vectors(vectors: Tensor) -> Tensor:
    """``vectors`` (n, dim), each divided by its length; zeros stay zeros."""
    units: Tensor = _UnitVectors.apply(vectors)
    return units


class _UnitVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp_(min=_SMALLEST)
        units: Tensor = vectors / lengths
        ctx.save_for_backward(units, lengths)
        return units

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        units, lengths = ctx.saved_tensors
        # What is left of the gradient without its share along the vector, which does not turn it.
        along = (gradient * units).sum(1, keepdim=True)  # (n, 1); no library's product, whose bits may depend on memory
        across: Tensor = torch.addcmul(gradient, units, along, value=-1)
        return across.div_(lengths)
