import pytest
import torch

from freemvmt.learning.optimizers import RowwiseAdagrad, optimizers_for, set_rate_factor


def sparse(rows: list[int], values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), values, size, check_invariants=True)


def test_steps_are_the_definition_and_untouched_rows_stay() -> None:
    table = torch.nn.Parameter(torch.randn(6, 4))
    expected, sums = table.detach().clone(), torch.zeros(6)
    optimizer = RowwiseAdagrad([table], lr=0.1)
    for rows in ([0, 2], [2, 5], [2, 2]):  # the last one is not coalesced: its two values add up
        values = torch.randn(2, 4)
        dense = torch.zeros(6, 4).index_add(0, torch.tensor(rows), values)
        table.grad = sparse(rows, values, (6, 4))
        optimizer.step()
        assert table.grad is None  # used up
        for row in set(rows):
            sums[row] += dense[row].square().mean()
            expected[row] -= 0.1 * dense[row] / sums[row].sqrt()
    torch.testing.assert_close(table.detach(), expected)


def test_a_first_step_has_the_size_of_the_rate_whatever_the_gradient() -> None:
    for scale in (1e-6, 1.0, 1e6):
        table = torch.nn.Parameter(torch.zeros(1, 64))
        table.grad = sparse([0], torch.randn(1, 64) * scale, (1, 64))
        RowwiseAdagrad([table], lr=0.03).step()
        assert float(table.detach().square().mean().sqrt()) == pytest.approx(0.03, rel=1e-4)


def test_a_zero_gradient_moves_nothing() -> None:
    table = torch.nn.Parameter(torch.ones(2, 3))
    table.grad = sparse([1], torch.zeros(1, 3), (2, 3))
    RowwiseAdagrad([table], lr=1.0).step()
    assert torch.equal(table.detach(), torch.ones(2, 3))


def test_tables_get_adagrad_and_the_rest_adam_and_rates_scale_together() -> None:
    model = torch.nn.ModuleDict({"table": torch.nn.Embedding(4, 2), "head": torch.nn.Linear(2, 2)})
    table = model["table"].weight
    rowwise, adam = optimizers_for(model, [table], lr=1e-3, table_factor=100)
    assert isinstance(rowwise, RowwiseAdagrad)
    assert isinstance(adam, torch.optim.AdamW)
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in model["head"].parameters()}
    for factor in (1.0, 0.5, 0.25):
        set_rate_factor([rowwise, adam], factor)
        assert rowwise.param_groups[0]["lr"] == pytest.approx(0.1 * factor)
        assert adam.param_groups[0]["lr"] == pytest.approx(1e-3 * factor)
