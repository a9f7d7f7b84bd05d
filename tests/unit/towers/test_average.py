import numpy as np
import pytest
import torch
from torch import Tensor

from freemvmt.data.ragged import TokenArray, offsets_of
from freemvmt.towers.average import AverageTower
from freemvmt.towers.pretrained import idf, principal_directions


def texts(lengths: list[int], vocabulary: int, seed: int = 0) -> TokenArray:
    draw = np.random.default_rng(seed)
    return TokenArray(draw.integers(0, vocabulary, sum(lengths)).astype(np.int32), offsets_of(np.array(lengths)))


def plain_mean(table: Tensor, tokens: TokenArray) -> Tensor:
    rows = [table[torch.from_numpy(tokens[number]).long()] for number in range(len(tokens))]
    means = [row.mean(0) if len(row) else table.new_zeros(table.shape[1]) for row in rows]
    return torch.stack(means) if means else table.new_zeros(0, table.shape[1])


MANY = [2] * 1100 + [9] * 1100  # more texts than a piece


@pytest.mark.parametrize(
    "lengths", [[3, 1, 7], [0], [], [0, 5, 0], [1] * 40, [200, 3], MANY], ids=lambda lengths: f"{lengths[:3]}"
)
def test_vectors_and_gradients_equal_plain_autograd_in_float64(lengths: list[int]) -> None:
    tokens = texts(lengths, vocabulary=11)
    table = torch.nn.Parameter(torch.randn(11, 5, dtype=torch.float64))
    weights = torch.randn(len(lengths), 5, dtype=torch.float64)

    vectors = AverageTower(table)(tokens)
    (vectors * weights).sum().backward()
    assert table.grad is not None
    fast, table.grad = table.grad.to_dense(), None
    expected = plain_mean(table, tokens)
    torch.testing.assert_close(vectors, expected, rtol=0, atol=1e-12)
    if sum(lengths):
        (expected * weights).sum().backward()
        assert table.grad is not None
        torch.testing.assert_close(fast, table.grad, rtol=0, atol=1e-12)
    else:
        assert not fast.any()


def test_the_gradient_holds_only_the_rows_that_the_texts_use() -> None:
    tokens = TokenArray(np.array([4, 4, 9], np.int32), np.array([0, 2, 3]))
    table = torch.nn.Parameter(torch.randn(10_000, 3))
    AverageTower(table)(tokens).sum().backward()
    assert table.grad is not None
    assert table.grad.is_sparse
    assert table.grad._indices().tolist() == [[4, 9]]


def test_two_uses_of_one_table_add_up() -> None:
    first, second = texts([4, 2], 9, seed=1), texts([3], 9, seed=2)
    table = torch.nn.Parameter(torch.randn(9, 4, dtype=torch.float64))
    tower = AverageTower(table)
    (tower(first).sum() + tower(second).sum()).backward()
    assert table.grad is not None
    both, table.grad = table.grad.to_dense(), None
    tower(first.followed_by(second)).sum().backward()
    torch.testing.assert_close(both, table.grad.to_dense(), rtol=0, atol=1e-12)


def test_idf_counts_documents_not_tokens() -> None:
    tokens = TokenArray(np.array([0, 0, 0, 1, 0, 2], np.int32), np.array([0, 4, 5, 6]))
    expected = np.log1p(3 / (1 + np.array([2, 1, 1, 0])))
    np.testing.assert_allclose(idf(tokens, 4), expected, rtol=1e-6)


def test_principal_directions_are_orthonormal_and_keep_the_most() -> None:
    table = torch.randn(500, 8) * torch.tensor([10.0, 5.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1])
    head = principal_directions(table, 2)
    torch.testing.assert_close(head @ head.T, torch.eye(2), atol=1e-5, rtol=0)
    assert head[0].abs().argmax() == 0
    assert head[1].abs().argmax() == 1
