import numpy as np
import pytest
import torch

from freemvmt.search.index import exact
from freemvmt.search.index.exact import top_k


@pytest.mark.parametrize(("queries", "documents", "k"), [(7, 50, 10), (1, 1, 5), (20, 33, 33), (3, 9, 100), (0, 5, 3)])
def test_blocks_find_what_a_whole_sort_finds(
    monkeypatch: pytest.MonkeyPatch, queries: int, documents: int, k: int
) -> None:
    monkeypatch.setattr(exact, "QUERY_BLOCK", 4)
    monkeypatch.setattr(exact, "DOCUMENT_BLOCK", 8)
    a, b = (torch.randn(count, 6, dtype=torch.float64) for count in (queries, documents))
    found = top_k(a, b, k)
    products = (a @ b.T).numpy()
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    assert found.documents.tolist() == order.tolist()
    np.testing.assert_allclose(found.scores, np.take_along_axis(products, order, 1), rtol=1e-5)


@pytest.mark.parametrize(("documents", "k"), [(640, 10), (700, 100), (256, 3)])
def test_groups_pass_over_no_document(monkeypatch: pytest.MonkeyPatch, documents: int, k: int) -> None:
    """Blocks of two groups, of which the later ones are only looked into where they may hold something."""
    monkeypatch.setattr(exact, "QUERY_BLOCK", 16)
    monkeypatch.setattr(exact, "DOCUMENT_BLOCK", 128)
    a = torch.randint(-3, 4, (21, 4)).double()  # small whole numbers: many scores are equal
    b = torch.randint(-3, 4, (documents, 4)).double()
    found = top_k(a, b, k)
    products = (a @ b.T).numpy()
    order = np.argsort(-products, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.scores, np.take_along_axis(products, order, 1))
    np.testing.assert_array_equal(np.take_along_axis(products, found.documents, 1), found.scores)
    assert all(len(set(row)) == k for row in found.documents.tolist())


def test_of_equal_scores_the_earlier_document_of_two_blocks_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "DOCUMENT_BLOCK", 1)
    assert top_k(torch.ones(1, 2), torch.ones(5, 2), 3).documents.tolist() == [[0, 1, 2]]
