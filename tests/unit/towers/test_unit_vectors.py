"""Vectors of length 1 and their gradient, against PyTorch's own."""

import torch
from torch.nn import functional as F

from freemvmt.towers.unit_vectors import unit_vectors


def test_values_and_gradients_are_those_of_pytorch() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(50, 7, generator=generator, dtype=torch.float64)
    ours[3] *= 1e-6
    theirs = ours.clone().requires_grad_()
    ours.requires_grad_()
    weights = torch.randn(50, 7, generator=generator, dtype=torch.float64)
    for units, vectors in ((unit_vectors(ours), ours), (F.normalize(theirs), theirs)):
        (units * weights).sum().backward()  # type: ignore[no-untyped-call]
        assert vectors.grad is not None
    torch.testing.assert_close(unit_vectors(ours), F.normalize(theirs), rtol=0, atol=1e-15)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9)


def test_zeros_stay_zeros_and_no_vector_has_no_unit() -> None:
    zeros = torch.zeros(2, 3, requires_grad=True)
    units = unit_vectors(zeros)
    units.sum().backward()  # type: ignore[no-untyped-call]
    assert not units.any()
    assert zeros.grad is not None
    assert bool(zeros.grad.isfinite().all())
    assert unit_vectors(torch.empty(0, 3)).shape == (0, 3)
