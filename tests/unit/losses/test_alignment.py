"""The alignment loss beside its definition."""

import pytest
import torch
from torch.nn import functional as F

from freemvmt.losses.alignment import alignment_loss


def test_it_is_the_mean_distance_from_the_targets() -> None:
    torch.manual_seed(0)
    vectors, targets = F.normalize(torch.randn(7, 5)), 3 * torch.randn(7, 5)
    expected = sum(1 - float(F.cosine_similarity(v, t, dim=0)) for v, t in zip(vectors, targets, strict=True)) / 7
    assert float(alignment_loss(vectors, targets)) == pytest.approx(expected, abs=1e-6)
    assert float(alignment_loss(F.normalize(targets), targets)) == pytest.approx(0, abs=1e-6)
    assert float(alignment_loss(-F.normalize(targets), targets)) == pytest.approx(2, abs=1e-6)


def test_shorter_vectors_have_the_first_numbers_of_the_targets() -> None:
    torch.manual_seed(0)
    targets = torch.randn(4, 6)
    assert float(alignment_loss(F.normalize(targets[:, :3]), targets)) == pytest.approx(0, abs=1e-6)


def test_no_text_costs_nothing_and_the_gradient_points_to_the_target() -> None:
    assert float(alignment_loss(torch.empty(0, 4), torch.empty(0, 4))) == 0
    vectors, targets = torch.tensor([[1.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 2.0]])
    alignment_loss(vectors, targets).backward()
    assert vectors.grad is not None
    assert vectors.grad.tolist() == [[0.0, -1.0]]
