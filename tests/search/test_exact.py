import numpy as np
import pytest
import torch

from freemvmt.search import exact
from freemvmt.search.exact import top_k


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


def test_of_equal_scores_the_earlier_document_of_two_blocks_is_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "DOCUMENT_BLOCK", 1)
    assert top_k(torch.ones(1, 2), torch.ones(5, 2), 3).documents.tolist() == [[0, 1, 2]]
