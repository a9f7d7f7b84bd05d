import dataclasses

import pytest
import torch

from freemvmt.config import TrainConfig
from freemvmt.model import TwoTowersModel
from freemvmt.trainer.optimizers import Optimizers, RowwiseAdagrad


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


def test_tables_get_adagrad_and_the_rest_adam_and_rates_scale_together(tiny_base: str) -> None:
    config = TrainConfig(
        base=tiny_base,
        tower="recurrent",
        dim=24,
        learning_rate=1e-3,
        table_rate_factor=100,
        recurrence_rate_factor=3,
        warmup=0.2,
    )
    model = TwoTowersModel(config.model_config())
    temperature = torch.nn.Parameter(torch.zeros(()))
    gathered = {"document.table": torch.rand(len(model.document_tower.table))}
    optimizers = Optimizers(model, config, temperature, gathered)
    rowwise, of_tower, of_head = optimizers.parts
    assert isinstance(rowwise, RowwiseAdagrad)
    assert isinstance(of_tower, torch.optim.AdamW)
    assert isinstance(of_head, torch.optim.AdamW)
    tower = model.document_tower
    rest = {id(weight) for name, weight in tower.named_parameters() if name != "table"}
    assert {id(weight) for weight in of_tower.param_groups[0]["params"]} == rest
    assert {id(weight) for weight in of_head.param_groups[0]["params"]} == {
        id(weight) for weight in (*model.document_head.parameters(), temperature)
    }
    assert torch.equal(optimizers.accumulators(model)["document.table"], gathered["document.table"])
    for done, factor in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.6, 0.5), (0.8, 0.25)):
        optimizers.set_rates(done)
        for optimizer, rate in ((rowwise, 0.1), (of_tower, 3e-3), (of_head, 1e-3)):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(rate * factor)


def test_gradients_of_all_but_the_table_are_held_to_a_norm_together(tiny_base: str) -> None:
    config = TrainConfig(base=tiny_base, dim=24)
    model = TwoTowersModel(config.model_config())
    (table,) = model.tables().values()
    dense = [weight for weight in model.parameters() if weight is not table]
    for norm, factor in ((0.0, 1.0), (100.0, 1.0), (1.0, 1 / 13)):
        temperature = torch.nn.Parameter(torch.zeros(()))
        optimizers = Optimizers(model, dataclasses.replace(config, clip_norm=norm), temperature, {})
        table.grad = sparse([1], torch.full((1, table.shape[1]), 50.0), tuple(table.shape))
        moved = table.detach().clone()
        for weight in dense:
            weight.grad = torch.zeros_like(weight)
        dense[0].grad.view(-1)[:2] = torch.tensor([3.0, 4.0])  # type: ignore[union-attr]
        temperature.grad = torch.tensor(12.0)
        optimizers.clip_and_step()
        assert dense[0].grad.view(-1)[:2].tolist() == pytest.approx([3 * factor, 4 * factor], rel=1e-4)  # type: ignore[union-attr]
        assert temperature.grad.item() == pytest.approx(12 * factor, rel=1e-4)
        step = (table.detach() - moved)[1].square().mean().sqrt().item()
        assert step == pytest.approx(0.03, rel=1e-3)
    aligned = dataclasses.replace(config, loss="align")
    assert (aligned.table_rate, config.table_rate) == pytest.approx((0.3, 0.03))
    assert dataclasses.replace(aligned, table_rate_factor=10.0).table_rate == pytest.approx(0.003)
