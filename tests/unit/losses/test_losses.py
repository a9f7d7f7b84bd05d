import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from freemvmt.config import Negatives
from freemvmt.losses import similarity as blocks
from freemvmt.losses import softmax as softmaxes
from freemvmt.losses.similarity import PositivePairs
from freemvmt.losses.softmax import Distillation, InfoNCE, Temperature
from freemvmt.losses.triplet import MarginMSE, TripletLoss

BATCH, DIM = 12, 6


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    return F.normalize(torch.randn(BATCH, DIM)), F.normalize(torch.randn(BATCH, DIM))


@pytest.fixture
def known() -> Tensor:
    known = torch.eye(BATCH, dtype=torch.bool)
    known[0, 3] = known[5, 1] = True
    return known


@pytest.fixture(autouse=True, params=[1024, 5], ids=["one block", "blocks of 5"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_CELLS", request.param * BATCH)
    monkeypatch.setattr(softmaxes, "_KEPT", request.param)


def named(mask: Tensor) -> PositivePairs:
    """The pairs that ``mask`` marks."""
    rows, columns = mask.nonzero(as_tuple=True)
    return PositivePairs(rows, columns)


def triplet(negatives: Negatives, margin: float = 0.3) -> TripletLoss:
    return TripletLoss(margin, negatives, torch.float32, seed=0)


def fixed(temperature: float) -> Temperature:
    return Temperature(temperature, torch.device("cpu"))


def with_given(documents: Tensor, has: Tensor) -> tuple[Tensor, Tensor]:
    """The batch's documents and one more for each row that ``has`` one, and where it stands, -1 for the others."""
    more = F.normalize(torch.randn(int(has.sum()), documents.shape[1]))
    return torch.cat([documents, more]), torch.where(has, len(has) + has.cumsum(0) - 1, -1)


def hinge(margin: float, anchor: Tensor, positive: Tensor, negative: Tensor) -> float:
    """The definition, with distances of one minus the cosine."""
    near = 1 - torch.cosine_similarity(anchor, positive, dim=0)
    far = 1 - torch.cosine_similarity(anchor, negative, dim=0)
    return max(0.0, float(margin + near - far))


def test_hardest_is_the_definition_written_out(vectors: tuple[Tensor, Tensor], known: Tensor) -> None:
    queries, documents = vectors
    terms = []
    for i in range(BATCH):
        others = [j for j in range(BATCH) if not known[i, j]]
        terms.append(max(hinge(0.3, queries[i], documents[i], documents[j]) for j in others))
        others = [j for j in range(BATCH) if not known[j, i]]
        terms.append(max(hinge(0.3, documents[i], queries[i], queries[j]) for j in others))
    assert float(triplet("hardest")(queries, documents, named(known))) == pytest.approx(
        sum(terms) / len(terms), abs=1e-6
    )


def test_all_is_the_mean_over_what_lies_within_the_margin(vectors: tuple[Tensor, Tensor], known: Tensor) -> None:
    queries, documents = vectors
    open_pairs = [(i, j) for i in range(BATCH) for j in range(BATCH) if not known[i, j]]
    forwards = [hinge(0.3, queries[i], documents[i], documents[j]) for i, j in open_pairs]
    backwards = [hinge(0.3, documents[j], queries[j], queries[i]) for i, j in open_pairs]
    means = [sum(terms) / max(1, sum(term > 0 for term in terms)) for terms in (forwards, backwards)]
    assert float(triplet("all")(queries, documents, named(known))) == pytest.approx(sum(means) / 2, abs=1e-6)


def test_given_uses_the_rows_own_and_falls_back_on_the_hardest(vectors: tuple[Tensor, Tensor], known: Tensor) -> None:
    queries, documents = vectors
    with_more, given = with_given(documents, torch.arange(BATCH) % 3 != 0)
    terms = []
    for i in range(BATCH):
        others = [documents[j] for j in range(BATCH) if not known[i, j]]
        rivals = [with_more[given[i]]] if given[i] >= 0 else others
        terms.append(max(hinge(0.3, queries[i], documents[i], rival) for rival in rivals))
    loss = triplet("given")(queries, with_more, named(known), given)
    assert float(loss) == pytest.approx(sum(terms) / BATCH, abs=1e-6)
    with pytest.raises(ValueError, match=r"^negatives='given' needs the given negatives$"):
        triplet("given")(queries, documents, named(known))


def test_gradients_are_those_of_autograd_on_the_definitions(
    vectors: tuple[Tensor, Tensor], known: Tensor, block: None
) -> None:
    """In float64, on the whole matrix, with nothing written out."""
    queries, documents = (side.double().requires_grad_() for side in vectors)
    others = known & ~torch.eye(BATCH, dtype=torch.bool)
    cosines = queries @ documents.T
    positive = cosines.diagonal()
    open_to = cosines.masked_fill(known, -torch.inf)
    hinges = [(0.3 + open_to.amax(side) - positive).clamp(min=0).mean() for side in (0, 1)]
    logits = (cosines / 0.1).masked_fill(others, -torch.inf)
    own = torch.arange(BATCH)
    entropy = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    taught = F.normalize(torch.randn(BATCH, 9)), F.normalize(torch.randn(BATCH, 9))
    distillation = Distillation(fixed(0.1), torch.float32)
    for expected, loss in (
        (sum(hinges) / 2, triplet("hardest")),
        (entropy, InfoNCE(fixed(0.1), torch.float32)),
        (divergence(cosines / 0.1, taught), lambda queries, documents, _: distillation(queries, documents, taught)),
    ):
        wanted = torch.autograd.grad(expected, [queries, documents], retain_graph=True)
        leaves = [side.detach().float().requires_grad_() for side in (queries, documents)]
        (3 * loss(*leaves, named(known))).backward()  # what comes from above counts
        for leaf, gradient in zip(leaves, wanted, strict=True):
            torch.testing.assert_close(leaf.grad, 3 * gradient.float(), atol=1e-6, rtol=1e-5)


def divergence(logits: Tensor, taught: tuple[Tensor, Tensor]) -> Tensor:
    """The mean over both directions, by PyTorch's own."""
    right = taught[0] @ taught[1].T / 0.1
    ways = ((logits, right), (logits.T, right.T))
    return sum(F.kl_div(F.log_softmax(a, 1), F.softmax(b, 1), reduction="batchmean") for a, b in ways) / 2


def test_distillation_is_the_divergence_from_the_teacher(vectors: tuple[Tensor, Tensor]) -> None:
    taught = F.normalize(torch.randn(BATCH, 9)), F.normalize(torch.randn(BATCH, 9))
    loss = Distillation(fixed(0.1), torch.float32)
    torch.testing.assert_close(loss(*vectors, taught), divergence(vectors[0] @ vectors[1].T / 0.1, taught))
    assert float(loss(*vectors, vectors)) == pytest.approx(0, abs=1e-6)  # who knows as much has nothing to learn


@pytest.mark.parametrize("negatives", ["hardest", "semi-hard", "random", "all"])
def test_a_known_positive_is_never_pushed_away(negatives: Negatives, known: Tensor) -> None:
    """Passage 3 is the very passage of query 0 and known as such: were it a negative, the loss could not be 0."""
    queries = torch.eye(BATCH)
    documents = queries.clone()
    documents[3] = queries[3] = queries[0]
    known[3, 0] = True
    assert float(triplet(negatives)(queries, documents, named(known))) == 0
    assert float(
        triplet(negatives)(queries, documents, named(torch.eye(BATCH, dtype=torch.bool)))
    ) > 0 or negatives in ("random", "semi-hard")


def test_random_draws_every_allowed_passage_and_no_other(known: Tensor) -> None:
    loss = TripletLoss(2.0, "random", torch.float32, seed=0)
    drawn: set[tuple[int, int]] = set()
    documents = F.normalize(torch.randn(BATCH, DIM))
    for _ in range(300):
        queries = F.normalize(torch.randn(BATCH, DIM)).requires_grad_()
        loss(queries, documents, named(known)).backward()
        assert queries.grad is not None
        # Without the backward direction's share, a row's gradient is (negative - positive) / (2 * batch).
        expected = (documents - 2 * documents[:, None]) / (2 * BATCH)  # of query i and document j, with that share
        rows, columns = torch.isclose(queries.grad[:, None], expected, atol=1e-7).all(2).nonzero(as_tuple=True)
        drawn |= set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert drawn == {(i, j) for i in range(BATCH) for j in range(BATCH) if not known[i, j]}


def test_where_everything_is_known_there_is_nothing_to_learn(vectors: tuple[Tensor, Tensor]) -> None:
    everything = torch.ones(BATCH, BATCH, dtype=torch.bool)
    for negatives in ("hardest", "semi-hard", "random", "all"):
        assert float(triplet(negatives)(*vectors, named(everything))) == 0
    assert float(InfoNCE(fixed(0.05), torch.float32)(*vectors, named(everything))) == pytest.approx(0, abs=1e-6)


def test_infonce_is_cross_entropy_both_ways(vectors: tuple[Tensor, Tensor]) -> None:
    queries, documents = vectors
    own = torch.arange(BATCH)
    logits = torch.cosine_similarity(queries.unsqueeze(1), documents.unsqueeze(0), dim=2) / 0.1
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    found = InfoNCE(fixed(0.1), torch.float32)(queries, documents, named(torch.eye(BATCH, dtype=torch.bool)))
    torch.testing.assert_close(found, expected)


def test_infonce_leaves_known_positives_out(vectors: tuple[Tensor, Tensor], known: Tensor) -> None:
    queries, documents = vectors
    loss = InfoNCE(fixed(0.1), torch.float32)
    logits = (queries @ documents.T / 0.1).exp() * (~known | torch.eye(BATCH, dtype=torch.bool))
    own = logits.diagonal()
    expected = -((own / logits.sum(1)).log().mean() + (own / logits.sum(0)).log().mean()) / 2
    torch.testing.assert_close(loss(queries, documents, named(known)), expected)


@pytest.mark.parametrize("negatives", ["hardest", "semi-hard", "random", "given", "all"])
def test_large_batches_have_equal_gradients_each_time(negatives: Negatives, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many queries share their hardest passage here; adding up their gradients in any order would change the bits."""
    monkeypatch.setattr(blocks, "_CELLS", 2**21)
    size = 2000
    queries, documents = F.normalize(torch.randn(size, 96)), F.normalize(torch.randn(size, 96) + 0.3)
    known = PositivePairs(torch.arange(size), torch.arange(size))
    given = None
    if negatives == "given":
        documents, given = with_given(documents, torch.arange(size) % 2 == 0)
    found = []
    for _ in range(3):
        leaves = queries.clone().requires_grad_(), documents.clone().requires_grad_()
        triplet(negatives)(*leaves, known, given).backward()
        found.append([leaf.grad for leaf in leaves])
    for again in found[1:]:
        assert all(torch.equal(first, second) for first, second in zip(found[0], again, strict=True))


def test_semi_hard_is_the_nearest_of_those_beyond_the_positive(vectors: tuple[Tensor, Tensor], known: Tensor) -> None:
    queries, documents = vectors
    cosines = queries @ documents.T
    terms = []
    for matrix, belongs in ((cosines, known), (cosines.T, known.T)):
        for i in range(BATCH):
            beyond = [matrix[i, j] for j in range(BATCH) if not belongs[i, j] and matrix[i, j] < matrix[i, i]]
            terms.append(float((0.3 + max(beyond) - matrix[i, i]).clamp(min=0)) if beyond else 0.0)
    assert any(term == 0 for term in terms)  # a positive that is the farthest of all has none
    loss = triplet("semi-hard")(queries, documents, named(known))
    assert float(loss) == pytest.approx(sum(terms) / len(terms), abs=1e-6)


@pytest.mark.parametrize("negatives", ["hardest", "given", "all"])
def test_margin_mse_is_the_definition_and_has_its_gradient(
    negatives: Negatives, vectors: tuple[Tensor, Tensor], known: Tensor
) -> None:
    queries, documents = vectors
    documents, given = with_given(documents, torch.arange(BATCH) % 3 != 0)
    if negatives != "given":
        documents, given = documents[:BATCH], None
    taught = F.normalize(torch.randn(BATCH, 9)), F.normalize(torch.randn(len(documents), 9))
    leaves = [side.double().requires_grad_() for side in (queries, documents)]
    cosines, right = leaves[0] @ leaves[1].T, (taught[0] @ taught[1].T).double()
    errors = (
        [(m.diagonal().unsqueeze(1) - m) for m in (cosines, right)],
        [(m.diagonal().unsqueeze(0) - m) for m in (cosines[:, :BATCH], right[:, :BATCH])],
    )
    forwards, backwards = ((ours - theirs).square() for ours, theirs in errors)
    rivals = cosines[:, :BATCH].detach().masked_fill(known, -torch.inf)
    own = torch.arange(BATCH)
    if negatives == "all":
        expected = (forwards[~known].mean() + backwards[~known].mean()) / 2
    elif given is not None:
        expected = forwards[own, torch.where(given >= 0, given, rivals.argmax(1))].mean()
    else:
        expected = (forwards[own, rivals.argmax(1)].mean() + backwards[rivals.argmax(0), own].mean()) / 2
    wanted = torch.autograd.grad(expected, leaves)
    found = [side.clone().requires_grad_() for side in (queries, documents)]
    loss = MarginMSE(negatives, torch.float32, seed=0)(*found, named(known), taught, given)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    loss.backward()
    for leaf, gradient in zip(found, wanted, strict=True):
        torch.testing.assert_close(leaf.grad, gradient.float(), atol=1e-6, rtol=1e-5)


def test_one_term_alone_is_the_mean() -> None:
    queries, documents = torch.eye(2), torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    mask = torch.eye(2, dtype=torch.bool)
    # Of the four terms only that of the second document and the first query is above 0: 0.3 + 0.6 - 0.8.
    assert triplet("all")(queries, documents, named(mask)).item() == pytest.approx(0.1 / 2)
    mask[0, 1] = True  # the pair of the second query and the first document is left: 1 - 0 and 0.8 - 0, 0 and 0
    loss = MarginMSE("all", torch.float32, seed=0)
    taught = torch.tensor([[0.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert loss(queries, documents, named(mask), taught).item() == pytest.approx((1.0**2 + 0.8**2) / 2)


@pytest.mark.parametrize("negatives", ["hardest", "all"])
def test_a_triplet_that_is_right_by_the_margin_has_no_gradient(negatives: Negatives) -> None:
    leaves = [torch.eye(BATCH).requires_grad_() for _ in range(2)]
    loss = triplet(negatives)(*leaves, named(torch.eye(BATCH, dtype=torch.bool)))
    loss.backward()
    assert loss.item() == 0
    for leaf in leaves:
        assert leaf.grad is not None
        assert not leaf.grad.any()


@pytest.mark.parametrize("kind", ["triplet, all", "triplet, hardest", "margin-mse"])
def test_products_are_of_the_numbers_that_a_loss_is_told(kind: str) -> None:
    queries, documents, *taught = (F.normalize(torch.randn(400, DIM)) for _ in range(4))

    def value(precision: torch.dtype) -> float:
        if kind == "margin-mse":
            loss = MarginMSE("all", precision, seed=0)(queries, documents, known, (taught[0], taught[1]))
        else:
            negatives: Negatives = "all" if "all" in kind else "hardest"
            loss = TripletLoss(0.3, negatives, precision, seed=0)(queries, documents, known)
        return loss.item()

    known = PositivePairs(torch.arange(400), torch.arange(400))
    exact, rough = value(torch.float32), value(torch.bfloat16)
    assert exact != rough
    assert exact == pytest.approx(rough, rel=0.05)


def test_infonce_and_distillation_hold_queries_against_what_was_given_and_it_against_none(
    vectors: tuple[Tensor, Tensor], known: Tensor
) -> None:
    queries, documents = vectors
    documents, _ = with_given(documents, torch.arange(BATCH) % 2 == 0)
    mask = F.pad(known, (0, len(documents) - BATCH))
    mask[4, BATCH] = True  # one of them answers another's query
    leaves = [side.double().requires_grad_() for side in (queries, documents)]
    others = mask & ~torch.eye(*mask.shape, dtype=torch.bool)
    logits = (leaves[0] @ leaves[1].T / 0.1).masked_fill(others, -torch.inf)
    own = torch.arange(BATCH)
    entropy = (F.cross_entropy(logits, own) + F.cross_entropy(logits[:, :BATCH].T, own)) / 2
    taught = F.normalize(torch.randn(BATCH, 9)), F.normalize(torch.randn(len(documents), 9))
    plain, right = leaves[0] @ leaves[1].T / 0.1, (taught[0] @ taught[1].T / 0.1).double()
    ways = ((plain, right), (plain[:, :BATCH].T, right[:, :BATCH].T))
    far = sum(F.kl_div(F.log_softmax(a, 1), F.softmax(b, 1), reduction="batchmean") for a, b in ways) / 2
    infonce, distillation = InfoNCE(fixed(0.1), torch.float32), Distillation(fixed(0.1), torch.float32)
    for expected, loss in (
        (entropy, lambda q, d: infonce(q, d, named(mask))),
        (far, lambda q, d: distillation(q, d, taught)),
    ):
        wanted = torch.autograd.grad(expected, leaves, retain_graph=True)
        found = [side.clone().requires_grad_() for side in (queries, documents)]
        value = loss(*found)
        assert value.item() == pytest.approx(expected.item(), abs=1e-5)
        value.backward()
        for leaf, gradient in zip(found, wanted, strict=True):
            torch.testing.assert_close(leaf.grad, gradient.float(), atol=1e-6, rtol=1e-5)


def test_a_temperature_is_learned_by_the_gradient_of_its_scale(vectors: tuple[Tensor, Tensor], known: Tensor) -> None:
    queries, documents = vectors
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    others = known & ~torch.eye(BATCH, dtype=torch.bool)
    logits = ((queries @ documents.T).double() * scale.exp()).masked_fill(others, -torch.inf)
    own = torch.arange(BATCH)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    (wanted,) = torch.autograd.grad(expected, [scale])
    temperature = Temperature(math.exp(-2), torch.device("cpu"), learned=True)
    InfoNCE(temperature, torch.float32)(queries.requires_grad_(), documents, named(known)).backward()
    assert temperature.weight.grad is not None
    assert float(temperature.weight.grad) == pytest.approx(float(wanted), rel=1e-4)
    assert float(Temperature(1e-9, torch.device("cpu"))) == 0.01
