"""The card of a trained model."""

from typing import Any

import pytest

from freemvmt.config import TrainConfig
from freemvmt.storage.model_card import write_card
from freemvmt.storage.sentence_config import SentenceConfig


@pytest.mark.parametrize(
    ("queries", "bounds", "score", "protocol"),
    [
        (1, None, "| 0.5000 |", "1 query of held-out"),
        (2000, [0.4, 0.6], "| 0.5000 (95 % of resamples: 0.4000 to 0.6000) |", "2,000 queries of held-out"),
    ],
)
def test_the_card_has_the_interval_of_several_queries(
    queries: int, bounds: list[float] | None, score: str, protocol: str
) -> None:
    record: dict[str, Any] = {
        "data": "pairs",
        "pairs": queries,
        "dim": 384,
        "scores": {
            "ndcg@10": 0.5,
            "untrained_ndcg@10": 0.25,
            "best_epoch": 1,
            "interval_95": {"ndcg@10": bounds},
        },
        "validation": {"collection": "held-out", "protocol": "full corpus", "queries": queries, "documents": 9},
    }
    card = write_card(TrainConfig(), record, "towers", SentenceConfig())
    assert score in card
    assert protocol in card
    assert ("interval_95" in card) == (bounds is not None)
