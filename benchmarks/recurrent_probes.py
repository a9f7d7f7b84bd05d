"""Where a recurrence helps: by the length of query and passage, and where nothing but the order of words tells.

Word order: short sentences made by rule from nouns and verbs that go both ways. A query has two passages with the
same words, of which one says what it says and one the reverse; an average cannot tell them apart.
"""

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
from quality import mean_of
from scipy import stats

from freemvmt.data.collection import Collection
from freemvmt.evaluation.metrics import Result
from freemvmt.model import TwoTowersModel

QUERY_WORDS = ((1, 4), (5, 7), (8, 12), (13, 10**6))
PASSAGE_WORDS = ((1, 60), (61, 90), (91, 130), (131, 10**6))

_NOUNS = (
    "dog", "cat", "man", "woman", "horse", "lion", "child", "teacher", "soldier", "king", "farmer", "doctor", "thief",
    "dragon", "wolf", "bear",
)  # fmt: skip
# (present, past participle)
_VERBS = [
    ("bites", "bitten"), ("chases", "chased"), ("follows", "followed"), ("saves", "saved"), ("sees", "seen"),
    ("hunts", "hunted"), ("fears", "feared"), ("teaches", "taught"), ("kills", "killed"), ("hears", "heard"),
]  # fmt: skip
# query, and a passage that says the same
_FORMS = {
    "same words": ("{a} {verb} {b}", "{a} {verb} {b}"),
    "article and stop": ("{a} {verb} {b}", "The {a} {verb} the {b}."),
    "question": ("who {verb} the {b}", "The {a} {verb} the {b}."),
    "active and passive": ("the {a} {verb} the {b}", "The {b} is {done} by the {a}."),
    "in a passage": (
        "{a} {verb} {b}",
        "It happened early in the morning. The {a} {verb} the {b}, and everybody in the village talks about it.",
    ),
}


def word_order(models: Sequence[TwoTowersModel]) -> dict[str, Any]:
    """For each form the share of queries that are nearer to the passage that says the same than to the reverse; a tie
    counts half. Mean of the models, and what chance alone would reach in one case of twenty."""
    found: dict[str, Any] = {}
    for name, (query, passage) in _FORMS.items():
        cases = [(a, b, *verb) for a, b in permutations(_NOUNS, 2) for verb in _VERBS]
        queries = [query.format(a=a, b=b, verb=verb, done=done) for a, b, verb, done in cases]
        right = [passage.format(a=a, b=b, verb=verb, done=done) for a, b, verb, done in cases]
        wrong = [passage.format(a=b, b=a, verb=verb, done=done) for a, b, verb, done in cases]
        shares = []
        for model in models:
            asked = model.encode_queries(queries)
            gap = (asked * (model.encode_documents(right) - model.encode_documents(wrong))).sum(1)
            told = (gap > 1e-6).float() + 0.5 * (gap.abs() <= 1e-6).float()
            shares.append(round(float(told.mean()), 4))
        found[name] = {"pairs": len(cases), "accuracy": round(float(np.mean(shares)), 4), "seeds": shares}
    return found


class ByLength:
    """Differences of NDCG@10 between two towers, of all collections together, by how long query and answer are."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, float]] = []  # words of the query, of its longest answer, difference

    def add(self, collection: Collection, average: list[Result], recurrent: list[Result]) -> None:
        """Take in the results of the seeds on a collection."""
        differences = mean_of(recurrent).per_query["ndcg@10"] - mean_of(average).per_query["ndcg@10"]
        words = {id: len(text.split()) for id, text in zip(collection.document_ids, collection.documents, strict=True)}
        for id, query, difference in zip(collection.query_ids, collection.queries, differences.tolist(), strict=True):
            longest = max(words[document] for document, grade in collection.qrels[id].items() if grade > 0)
            self._rows.append((len(query.split()), longest, difference))

    def table(self) -> dict[str, list[dict[str, Any]]]:
        """The mean difference in each range, its 95 % interval, and the p-value of a paired t-test."""
        rows = np.array(self._rows)
        return {
            name: [
                _range(rows[(rows[:, column] >= low) & (rows[:, column] <= high), 2], low, high) for low, high in ranges
            ]
            for column, (name, ranges) in enumerate((("query_words", QUERY_WORDS), ("passage_words", PASSAGE_WORDS)))
        }


def _range(differences: Any, low: int, high: int) -> dict[str, Any]:
    test = stats.ttest_1samp(differences, 0.0)
    interval = test.confidence_interval()
    return {
        "from": low,
        "to": high if high < 10**6 else None,
        "queries": len(differences),
        "difference": round(float(differences.mean()), 4),
        "interval_95": [round(float(interval.low), 4), round(float(interval.high), 4)],
        "p_value": float(f"{test.pvalue:.2g}"),
    }
