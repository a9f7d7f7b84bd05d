"""A cross-encoder of each kind scores as its own library does."""

from pathlib import Path

import numpy as np
import pytest

from freemvmt.search import reranker as reranking
from freemvmt.search.reranker import Reranker

from encoders import QUERY, TEXTS, write_cross_encoder

KINDS = ("bert", "distilbert", "electra", "mpnet", "xlm-roberta", "roberta", "modernbert")


def library_scores(folder: Path, query: str, texts: list[str], length: int) -> list[float]:
    """The scores of sentence-transformers: the sigmoid of one output, or the probability of the second."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), max_length=length, device="cpu", local_files_only=True)
    scores = model.predict([(query, text) for text in texts], apply_softmax=model.num_labels == 2)
    return np.asarray(scores if model.num_labels == 1 else scores[:, 1]).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_sentence_transformers(
    kind: str, labels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cross_encoder(tmp_path / "cross", kind, labels)
    expected = library_scores(folder, QUERY, TEXTS, 40)
    assert max(expected) - min(expected) > 1e-2
    found = Reranker(str(folder)).scores(QUERY, TEXTS)  # of 512 tokens it reads 40
    np.testing.assert_allclose(found, expected, atol=1e-4)
    monkeypatch.setattr(reranking, "_MAX_TOKENS", 50)
    for threads in (1, 3):
        np.testing.assert_allclose(Reranker(str(folder), threads=threads).scores(QUERY, TEXTS), expected, atol=1e-4)
    np.testing.assert_allclose(
        Reranker(str(folder), 30).scores(QUERY, TEXTS), library_scores(folder, QUERY, TEXTS, 30), atol=1e-4
    )
