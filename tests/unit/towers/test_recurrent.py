"""The recurrent tower beside a plain loop over one text at a time, for every cell, pooling and direction."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from freemvmt.config import ModelConfig
from freemvmt.data.ragged import TokenArray, offsets_of
from freemvmt.towers.cells import packed_states
from freemvmt.towers.packing import Packing
from freemvmt.towers.recurrent import RecurrentTower

VOCABULARY, WIDTH = 30, 8
CELLS, POOLINGS = ["gru", "lstm"], ["weighted", "mean", "both"]


def texts(*lengths: int, seed: int = 0) -> TokenArray:
    ids = np.random.default_rng(seed).integers(0, VOCABULARY, sum(lengths), dtype=np.int32)
    return TokenArray(ids, offsets_of(np.array(lengths)))


def tower(seed: int = 0, **settings: object) -> RecurrentTower:
    """A tower whose output has weights, as after training."""
    torch.manual_seed(seed)
    config = ModelConfig(tower="recurrent", hidden=5, dropout=0.0, **settings)  # type: ignore[arg-type]
    made = RecurrentTower(nn.Parameter(torch.randn(VOCABULARY, WIDTH)), config)
    nn.init.normal_(made.output.weight, std=0.5)
    return made.eval()


def by_hand(made: RecurrentTower, ids: list[int]) -> Tensor:
    """The vector of one text, word by word as the definitions say."""
    if not ids:
        return torch.zeros(WIDTH)
    x = made.table[ids]
    states = x * made.scale  # (tokens, width)
    states, _ = made.cell.recurrence(states)  # PyTorch's own
    if made.pooling != "mean":
        outputs = made.output(states)  # (tokens, 1), or (tokens, 1 + width)
        weights = outputs[:, :1].clamp(-3, 3).exp()
        weighted = (weights * x).sum(0) / weights.sum()
        return weighted if made.pooling == "weighted" else weighted + outputs[:, 1:].mean(0)
    return made.output(states.mean(0)) + (x.mean(0) if made.residual else 0)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both ways", "one way"])
@pytest.mark.parametrize(("cell", "pooling"), list(itertools.product(CELLS, POOLINGS)))
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
def test_a_batch_gives_what_each_text_gives_alone(
    cell: str, pooling: str, bidirectional: bool, layers: int, residual: bool
) -> None:
    made = tower(cell=cell, pooling=pooling, bidirectional=bidirectional, layers=layers, residual=residual)
    tokens = texts(3, 0, 7, 1, 7, 2, 0, 12, 3)
    with torch.no_grad():
        vectors = made(tokens)
        for number in range(len(tokens)):
            torch.testing.assert_close(vectors[number], by_hand(made, tokens[number].tolist()), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("cell", "pooling"), list(itertools.product(CELLS, POOLINGS)))
def test_the_gradient_is_that_of_the_plain_loop(cell: str, pooling: str) -> None:
    made = tower(cell=cell, pooling=pooling, layers=2).train()
    tokens = texts(4, 0, 9, 9, 1)
    wanted = torch.randn(len(tokens), WIDTH)
    (made(tokens) * wanted).sum().backward()
    assert made.table.grad is not None
    assert made.table.grad.is_sparse
    gradients = {name: weight.grad for name, weight in made.named_parameters()}
    found = {name: gradient.to_dense().clone() for name, gradient in gradients.items() if gradient is not None}
    made.zero_grad()
    vectors = torch.stack([by_hand(made, tokens[number].tolist()) for number in range(len(tokens))])
    (vectors * wanted).sum().backward()
    right = {name: weight.grad for name, weight in made.named_parameters()}
    assert found.keys() == right.keys()
    for name, gradient in right.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cell", "pooling"), list(itertools.product(CELLS, POOLINGS)))
def test_the_company_of_a_text_changes_nothing(cell: str, pooling: str) -> None:
    made = tower(cell=cell, pooling=pooling)
    tokens = texts(5, 2, 30, 9, 1, 17)
    with torch.no_grad():
        vectors = made(tokens)
        for index in ([3], [5, 0, 2], [2, 3]):
            torch.testing.assert_close(made(tokens.take(np.array(index))), vectors[index], rtol=0, atol=1e-6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("residual", [True, False], ids=["residual", "plain"])
def test_the_shares_of_a_texts_tokens_add_up_to_its_vector(pooling: str, residual: bool) -> None:
    made = tower(pooling=pooling, residual=residual)
    tokens = texts(5, 0, 30, 1)
    with torch.no_grad():
        parts, vectors = made.split(tokens), made(tokens)
    for number in range(len(tokens)):
        own = parts[tokens.offsets[number] : tokens.offsets[number + 1]]
        torch.testing.assert_close(own.sum(0), vectors[number], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("cell", "pooling"), list(itertools.product(CELLS, POOLINGS)))
def test_an_untrained_tower_is_the_average(cell: str, pooling: str) -> None:
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(VOCABULARY, WIDTH))
    made = RecurrentTower(table, ModelConfig(tower="recurrent", cell=cell, pooling=pooling, hidden=5))  # type: ignore[arg-type]
    tokens = texts(5, 0, 30, 1)
    with torch.no_grad():
        vectors = made.eval()(tokens)
    for number in range(len(tokens)):
        mean = table[tokens[number].tolist()].mean(0) if len(tokens[number]) else torch.zeros(WIDTH)
        torch.testing.assert_close(vectors[number], mean, rtol=0, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_half_the_bits_in_training_give_nearly_the_same_and_none_of_it_after(cell: str) -> None:
    made = tower(cell=cell, layers=2)
    tokens = texts(5, 0, 30, 1)
    exact = made(tokens)
    exact.sum().backward()
    gradients = {name: weight.grad.to_dense().clone() for name, weight in made.named_parameters()}
    made.zero_grad()
    made.train_in(torch.bfloat16)
    assert torch.equal(made(tokens), exact)
    near = made.train()(tokens)
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, rtol=0, atol=0.02)
    near.sum().backward()
    for name, weight in made.named_parameters():
        torch.testing.assert_close(weight.grad.to_dense(), gradients[name], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False], ids=["both ways", "one way"])
@pytest.mark.parametrize("cell", CELLS)
def test_pytorchs_kernels_which_a_gpu_takes_give_the_same_states(cell: str, bidirectional: bool, layers: int) -> None:
    made = tower(cell=cell, bidirectional=bidirectional, layers=layers)
    tokens = texts(3, 0, 7, 1, 7, 2, 12, 3)
    packing = Packing.of(tokens.lengths, torch.device("cpu"))
    places = torch.from_numpy(tokens.ids.astype(np.int64))
    rows = made.table.detach()
    found: dict[torch.dtype, list[Tensor]] = {}
    gradients: dict[torch.dtype, dict[str, Tensor]] = {}
    expected = made.cell(rows, places, packing)
    for precision in (torch.float32, torch.bfloat16):
        made.zero_grad()
        found[precision] = packed_states(made.cell.recurrence, rows, places, packing, precision)
        torch.cat(found[precision]).sum().backward()
        gradients[precision] = {name: weight.grad.clone() for name, weight in made.cell.named_parameters()}
    made.zero_grad()
    torch.cat(expected).sum().backward()
    for direction, states in enumerate(expected):
        torch.testing.assert_close(found[torch.float32][direction], states, rtol=0, atol=1e-6)
        torch.testing.assert_close(found[torch.bfloat16][direction], states, rtol=0, atol=0.02)
    for name, weight in made.cell.named_parameters():
        torch.testing.assert_close(gradients[torch.float32][name], weight.grad, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(gradients[torch.bfloat16][name], weight.grad, rtol=0.1, atol=0.3)


def test_the_order_of_words_counts() -> None:
    made = tower(pooling="weighted", cell="gru")
    forwards = TokenArray(np.array([1, 2, 3], np.int32), np.array([0, 3]))
    backwards = TokenArray(np.array([3, 2, 1], np.int32), np.array([0, 3]))
    with torch.no_grad():
        assert not torch.allclose(made(forwards), made(backwards), atol=1e-3)


def test_no_text_and_no_token_give_zeros() -> None:
    made = tower()
    assert made(texts()).shape == (0, WIDTH)
    assert made(texts(0, 0)).tolist() == [[0.0] * WIDTH] * 2
    assert made.split(texts(0, 0)).shape == (0, WIDTH)
