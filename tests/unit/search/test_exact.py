from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freemvmt.search.index import exact
from freemvmt.search.index.exact import top_k


def whole_sort(products: Any, k: int) -> Any:
    """The documents of the ``k`` largest of each row; of equal ones, the earlier first."""
    return np.argsort(-products, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("queries", "documents", "k"), [(7, 50, 10), (1, 1, 5), (20, 33, 33), (3, 9, 100), (0, 5, 3)])
def test_blocks_find_what_a_whole_sort_finds(
    monkeypatch: pytest.MonkeyPatch, queries: int, documents: int, k: int
) -> None:
    monkeypatch.setattr(exact, "QUERY_BLOCK", 4)
    monkeypatch.setattr(exact, "_SCORES", 32)
    a, b = (torch.randn(count, 6, dtype=torch.float64) for count in (queries, documents))
    found = top_k(a, b, k)
    products = (a @ b.T).numpy()
    order = whole_sort(products, k)
    assert found.documents.tolist() == order.tolist()
    np.testing.assert_allclose(found.scores, np.take_along_axis(products, order, 1), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10**6), documents=st.integers(1, 3000), k=st.integers(1, 300), sides=st.integers(1, 4))
def test_a_sample_changes_no_answer(seed: int, documents: int, k: int, sides: int) -> None:
    """Small whole numbers: many scores are equal, and the earlier document is ahead."""
    draw = np.random.default_rng(seed)
    a, b = (draw.integers(-sides, sides + 1, (count, 3)).astype(np.float32) for count in (9, documents))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "QUERY_BLOCK", 4)
        patch.setattr(exact, "_SCORES", int(draw.integers(1, 4000)))
        found = top_k(torch.from_numpy(a), torch.from_numpy(b), k)
    products = a @ b.T
    order = whole_sort(products, k)
    np.testing.assert_array_equal(found.documents, order)
    np.testing.assert_array_equal(found.scores, np.take_along_axis(products, order, 1))


def test_a_sample_that_misleads_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """All documents of the sample are better than all others: fewer than ``k`` exceed the threshold."""
    b = torch.randn(2000, 8)
    step = 2000 // (2000 // exact._SHARE)
    b[::step] = torch.ones(8) + torch.rand(len(b[::step]), 8)
    a = torch.ones(5, 8)
    searched: list[int] = []
    search = exact._search
    monkeypatch.setattr(exact, "_search", lambda *given: searched.append(len(given[0])) or search(*given))
    found = top_k(a, b, 100)
    assert searched == [5, 5]
    np.testing.assert_array_equal(found.documents, whole_sort((a @ b.T).numpy(), 100))


def test_a_sample_limits_what_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, made = exact._keys_of, []
    monkeypatch.setattr(exact, "_keys_of", lambda scores, numbers: made.append(len(scores)) or keys(scores, numbers))
    draw = torch.Generator().manual_seed(0)
    top_k(torch.randn(64, 8, generator=draw), torch.randn(20_000, 8, generator=draw), 100)
    assert 64 * 100 <= sum(made) < 64 * 1000


def test_scores_that_are_no_numbers_are_found_too() -> None:
    b = torch.tensor([[1.0], [float("nan")], [float("-inf")], [-0.0], [0.0]])
    assert top_k(torch.ones(1, 1), b, 5).documents.tolist() == [[1, 0, 3, 4, 2]]


def test_of_equal_scores_the_earlier_document_of_two_blocks_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "_SCORES", 1)
    assert top_k(torch.ones(1, 2), torch.ones(5, 2), 3).documents.tolist() == [[0, 1, 2]]
