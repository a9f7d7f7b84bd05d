"""Documents with metadata, bundles of them, and what a search must answer, said in plain Python."""

import json
import random
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document
from freemvmt.model import TwoTowersModel
from freemvmt.search.retriever import Hit, Retriever

from rows import ANSWERED, ASKED

VOCABULARY = (*ASKED, *ANSWERED)  # no stop word among them, and no two with one stem
MakeBundle = Callable[..., Path]
SOURCES = (
    "debian",
    "reuters",
    "",
    "été",
    "a\0b",
    "日本",
    "Debian",
    "ＤＥＢＩＡＮ",
    "E\u0301TE\u0301",
    "ﬁne",
    "fine",
    "straße",
)


def make_documents(names: Iterable[str], seed: int) -> list[Document]:
    """Documents of those ids: three to eight words, half of them with a title, metadata of every kind."""
    draw = random.Random(seed)
    return [
        Document(
            name,
            " ".join(draw.choices(VOCABULARY, k=draw.randint(3, 8))),
            draw.choice(["", " ".join(draw.choices(VOCABULARY, k=2))]),
            make_metadata(draw),
        )
        for name in names
    ]


def make_metadata(draw: random.Random) -> dict[str, Any]:
    """Fields that are often missing or null; lists; what can only be kept; numbers of all sizes."""
    sizes = [0, 1, 2**53, -(2**53), 2.0**60, draw.randint(-5, 5), 0.5, None]
    metadata: dict[str, Any] = {
        "source": draw.choice(SOURCES),
        "year": draw.randint(1985, 2005),
        "size": draw.choice([0, 1, 2**53, -(2**53), 2**53 + 1, -(2**63), 10**30, draw.randint(-5, 5)]),
        "score": draw.choice([0.0, -0.0, 0.5, -1.25, 1e300, 5e-324, draw.random()]),
        "either": draw.choice([1, 1.0, 1.5, 2**53 - 1, float(2**53), 2]),
        "flag": draw.random() < 0.4,
        "tags": draw.choice([[], "fine", draw.choices([*SOURCES, None], k=draw.randint(1, 4))]),
        "sizes": draw.choice([[], 1, draw.choices(sizes, k=draw.randint(1, 4))]),
        "flags": draw.choice([[], [True], [False, True], [True, None, True], False]),
        "mixed": ["a", 1],
        "nested": {"year": 1990},
    }
    for name in list(metadata):
        chance = draw.random()
        if chance < 0.1:
            del metadata[name]
        elif chance < 0.2:
            metadata[name] = None
    return metadata


def make_condition(draw: random.Random, name: str) -> Any:
    """A condition that some documents of ``make_metadata`` meet."""
    if name in ("flag", "flags"):
        return draw.choice([True, False, [True], [True, False]])
    if name in ("source", "tags"):
        values: list[Any] = [*SOURCES, "nowhere"]
    else:
        drawn = [make_metadata(draw).get(name) for _ in range(9)]
        values = [one for value in drawn for one in (value if isinstance(value, list) else [value])]
        values += [-1, 0.5, 1990, 1990.5, 2**53 - 1, 2**53, float(2**53), -1e300, 1e300, 2.0**63]
        values = [value for value in values if value is not None and not is_beyond(value)]
    sort = draw.choice(["equal", "any", "range", "range"])
    if sort == "equal":
        return draw.choice(values)
    if sort == "any":
        return draw.choices(values, k=draw.randint(1, 4))
    return {key: draw.choice(values) for key in draw.sample(["gte", "gt", "lte", "lt"], draw.randint(1, 2))}


def make_filter(draw: random.Random) -> dict[str, Any]:
    """A filter on up to three fields."""
    fields = ["source", "year", "size", "score", "either", "flag", "tags", "sizes", "flags"]
    names = draw.sample(fields, draw.randint(0, 3))
    return {name: make_condition(draw, name) for name in names}


def matches(metadata: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether a document with ``metadata`` meets every condition, of a list one member; Python compares numbers
    exactly, and text in one form."""
    return all(_meets(metadata.get(name), condition) for name, condition in conditions.items())


def _meets(value: Any, condition: Any) -> bool:
    if isinstance(value, list):
        return any(_meets(member, condition) for member in value)
    if value is None or isinstance(value, dict) or is_beyond(value):  # what cannot be filtered on
        return False
    value = form(value)
    if isinstance(condition, list):
        return value in [form(one) for one in condition]
    if not isinstance(condition, dict):
        return bool(value == form(condition))
    signs: dict[str, Callable[[Any], bool]] = {
        "gte": lambda bound: value >= bound,
        "gt": lambda bound: value > bound,
        "lte": lambda bound: value <= bound,
        "lt": lambda bound: value < bound,
    }
    return all(signs[key](form(bound)) for key, bound in condition.items())


def is_beyond(value: Any) -> bool:
    """Whether this is a whole number that not every float can hold."""
    return isinstance(value, int) and abs(value) > 2**53


def form(value: Any) -> Any:
    """What a value compares as."""
    return unicodedata.normalize("NFKC", value).casefold() if isinstance(value, str) else value


def write_corpus(path: Path, documents: Iterable[Document]) -> Path:
    """The documents as JSONL."""
    rows = ({"_id": d.id, "text": d.text, "title": d.title, "metadata": d.metadata} for d in documents)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words_of(text: str) -> set[str]:
    return set(text.split())


class Truth:
    """``documents`` as a bundle of them should answer; change the dict as the bundle is changed.

    ``tolerance``: how far a stored vector may be from the model's.
    """

    def __init__(self, model: TwoTowersModel, documents: Mapping[str, Document], tolerance: float = 1e-5) -> None:
        self.model = model
        self.documents = dict(documents)
        self.tolerance = tolerance
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def cosines(self, query: str, documents: Sequence[Document]) -> dict[str, float]:
        """The cosine of each document with ``query``."""
        contents = [document.content for document in documents]
        new = list(dict.fromkeys(content for content in contents if content not in self._vectors))
        self._vectors |= zip(new, self.model.encode_documents(new).numpy(), strict=True)
        if not contents:
            return {}
        scores = (
            np.stack([self._vectors[content] for content in contents]) @ self.model.encode_queries([query])[0].numpy()
        )
        return {document.id: float(score) for document, score in zip(documents, scores, strict=True)}

    def check(
        self,
        retriever: Retriever,
        query: str,
        k: int,
        conditions: Mapping[str, Any] | None = None,
        *,
        by_words: bool = True,
    ) -> None:
        """Every method's answer to ``query``, against all documents one by one; without ``by_words`` of dense alone.

        Without a filter an index that is not exact may leave a document out for another, but still gives ``k``.
        """
        kept = {d.id: d for d in self.documents.values() if matches(d.metadata, conditions or {})}
        true = self.cosines(query, list(kept.values()))
        wanted = min(k, len(kept))

        dense = retriever.search(query, k, "dense", filter=conditions)
        check_hits(dense, kept)
        assert len(dense) == wanted
        for hit in dense:
            assert hit.dense == hit.score
            assert abs(hit.score - true[hit.id]) < self.tolerance
        if conditions is not None or retriever.about["index"]["kind"] == "exact":
            best = sorted(true.values(), reverse=True)[:wanted]
            np.testing.assert_allclose([hit.score for hit in dense], best, atol=self.tolerance)

        if not by_words:
            return
        lexical = retriever.search(query, k, "bm25", filter=conditions)
        check_hits(lexical, kept)
        asked = set(query.split())
        sharing = {name for name, document in kept.items() if not asked.isdisjoint(document.content.split())}
        assert len(lexical) == min(k, len(sharing))
        assert {hit.id for hit in lexical} <= sharing
        assert all(hit.bm25 == hit.score > 0 for hit in lexical)

        hybrid = retriever.search(query, k, "hybrid", filter=conditions)
        check_hits(hybrid, kept)
        assert len(hybrid) == wanted
        for hit in hybrid:
            assert hit.dense is None or abs(hit.dense - true[hit.id]) < self.tolerance
            assert hit.bm25 is None or hit.id in sharing


def check_hits(hits: Sequence[Hit], documents: Mapping[str, Document]) -> None:
    """Each is a document as it was given, none twice, best first."""
    assert len({hit.id for hit in hits}) == len(hits)
    for hit in hits:
        known = documents[hit.id]
        assert (hit.text, hit.title, hit.metadata) == (known.text, known.title, known.metadata)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


def corpus_of(path: Path, count: int, label: str = "river") -> str:
    documents = [Document(f"{label}{number}", f"{label} {number}") for number in range(count)]
    return str(write_corpus(path, documents))
