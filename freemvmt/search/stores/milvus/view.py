"""The view of a Milvus collection, which Milvus searches and this module filters exactly.

A document's key is a hash of its id, a facet is a hash of its value, and the bound of a range of strings is
hexadecimal, so an expression never contains text of a user. Milvus returns only documents that may match a filter; this
module then checks their metadata. BM25 uses the same text analysis as bundles, and is computed by Milvus 2.5 or later.
"""

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document, unchecked_document
from freemvmt.data.passages import Passage
from freemvmt.errors import UserError
from freemvmt.search.index.analysis import normalized, plain_words
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Selection
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import FieldKind, Filter, short_hash
from freemvmt.search.stores.milvus.client import MAX_RANKED, Client
from freemvmt.storage.digests import digest_of
from freemvmt.storage.files import is_storable

ROWS_AT_ONCE = 1000  # rows in one request
_QUERIES_AT_ONCE = 64
_ENDS = ("_least", "_most")  # suffixes of the names of a field's smallest and largest value
_PREFIX_BYTES = 32  # bytes of a string that Milvus compares in a range
_MAX_LISTED = 32  # numbers of an "any of" condition; of more, only the range is sent


@dataclass(frozen=True, eq=False)
class MilvusSelection(Selection):
    """The documents that meet a filter: all of them meet ``expression``. ``exact`` says that no other document does."""

    conditions: Filter
    expression: str
    exact: bool


class MilvusView:
    """The ``View`` of a ``MilvusStore``. Documents are numbered in the order in which searches return them.

    A document that is deleted between two requests of one search is returned with its id only.
    """

    def __init__(
        self, client: Client, collection: str, kinds: Callable[[], dict[str, FieldKind]], has_words: bool
    ) -> None:
        self._client, self._collection = client, collection
        self._read_kinds, self._has_words = kinds, has_words
        self._numbers: dict[str, int] = {}  # by key
        self._ids: list[str] = []

    is_cut = False

    @property
    def passage_count(self) -> int:
        """The number of documents, which are whole."""
        return len(self)

    def owners(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same numbers: documents are whole."""
        return numbers

    def passages(self, numbers: Sequence[int]) -> list[Passage | None]:
        """None for each: documents are whole."""
        return [None] * len(numbers)

    def passages_of(self, number: int) -> range:
        """The number itself: documents are whole."""
        return range(number, number + 1)

    def __len__(self) -> int:
        return int(self._client("query", self._collection, "", output_fields=["count(*)"])[0]["count(*)"])

    @functools.cached_property
    def kinds(self) -> dict[str, FieldKind]:
        """The kind of each metadata field that can be filtered on."""
        return self._read_kinds()

    def among(self, conditions: Filter) -> MilvusSelection:
        """The documents that meet ``conditions``."""
        fields.check(conditions, self.kinds)
        facets = fields.facet_groups(conditions)
        clauses = [f'json_contains_any(facets["all"], {json.dumps(group)})' for group in facets]
        clauses += [clause for name, condition in conditions.items() for clause in self._range_clauses(name, condition)]
        return MilvusSelection(conditions, " and ".join(clauses), exact=len(facets) == len(conditions))

    def _range_clauses(self, name: str, condition: Any) -> Iterator[str]:
        """Conditions on the ends (``ends_of``) of a field that hold if one of its values meets ``condition``."""
        smallest, largest = (f'ends["{short_hash(name)}{end}"]' for end in _ENDS)
        if isinstance(condition, dict):
            for sign, bound in condition.items():
                end = _end(bound)
                strict = (
                    sign in ("gt", "lt") and isinstance(end, str) and len(end) < 2 * _PREFIX_BYTES
                )  # otherwise the bound may be rounded
                comparison = f"{largest} >" if sign in ("gte", "gt") else f"{smallest} <"
                yield f"{comparison}{'' if strict else '='} {json.dumps(end)}"
        elif self.kinds[name] == "number":
            values = sorted({float(value) for value in (condition if isinstance(condition, list) else [condition])})
            if len(values) <= _MAX_LISTED:
                clauses = [f"({smallest} <= {value!r} and {largest} >= {value!r})" for value in values]
                yield f"({' or '.join(clauses)})"
            else:
                yield f"{largest} >= {values[0]!r} and {smallest} <= {values[-1]!r}"

    def dense(self, queries: Vectors, k: int, selection: Selection | None) -> Ranking:
        """The nearest documents."""
        return self._ranking("vector", queries.tolist(), k, selection)

    def lexical(self, queries: Sequence[str], k: int, selection: Selection | None) -> Ranking:
        """The best documents by BM25; ``UserError`` when this Milvus has none."""
        if not self._has_words:
            version = self._client("get_server_version")
            raise UserError(f"Milvus {version} has no BM25, which came with 2.5; search with --method dense")
        words = [plain_words(query) for query in queries]
        rows = [row for row, text in enumerate(words) if text]
        ranking = self._ranking("sparse", [words[row] for row in rows], k, selection)
        numbers = np.full((len(queries), ranking.documents.shape[1]), -1, np.int64)
        scores = np.zeros(numbers.shape, np.float32)
        numbers[rows], scores[rows] = ranking.documents, np.abs(ranking.scores)  # Milvus Lite returns negative scores
        return Ranking(numbers, scores)

    def _ranking(self, field: str, queries: list[Any], k: int, selection: Selection | None) -> Ranking:
        assert selection is None or isinstance(selection, MilvusSelection)
        results = [
            hits
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
            for hits in self._matching_hits(field, queries[start : start + _QUERIES_AT_ONCE], k, selection)
        ]
        width = max(map(len, results), default=0)
        numbers, scores = np.full((len(results), width), -1, np.int64), np.zeros((len(results), width), np.float32)
        for row, hits in enumerate(results):
            numbers[row, : len(hits)] = [self._number(hit["entity"]["key"], hit["entity"]["id"]) for hit in hits]
            scores[row, : len(hits)] = [hit["distance"] for hit in hits]
            scores[row, len(hits) :] = scores[row, len(hits) - 1] if hits else 0
        return Ranking(numbers, scores)

    def _matching_hits(
        self, field: str, queries: list[Any], k: int, selection: MilvusSelection | None
    ) -> list[list[dict[str, Any]]]:
        """The ``k`` best hits of each query that are in ``selection``."""
        limit = min(k, MAX_RANKED)
        exact = selection is None or selection.exact
        columns = ["key", "id"] if exact else ["key", "id", "metadata"]
        parameters = {"params": {"ef": max(limit, 128 if selection is None else 512)}} if field == "vector" else {}
        while True:  # some hits do not match: ask for more until enough match or there are no more
            response = self._client(
                "search", self._collection, queries, anns_field=field, limit=limit, search_params=parameters,
                filter=selection.expression if selection else "", output_fields=columns,
            )  # fmt: skip
            results = [list(hits) for hits in response]
            matches = results if selection is None or exact else [self._matches(hits, selection) for hits in results]
            if (
                exact
                or limit == MAX_RANKED
                or all(len(a) >= k or len(b) < limit for a, b in zip(matches, results, strict=True))
            ):
                return [hits[:k] for hits in matches]
            limit = min(4 * limit, MAX_RANKED)

    def _matches(self, hits: list[dict[str, Any]], selection: MilvusSelection) -> list[dict[str, Any]]:
        metadata = [json.loads(hit["entity"]["metadata"]) for hit in hits]
        kinds = {name: self.kinds[name] for name in selection.conditions}
        mask: NDArray[np.bool_] = Columns.of(metadata, kinds).mask(selection.conditions)
        return [hit for hit, keep in zip(hits, mask.tolist(), strict=True) if keep]

    def _number(self, key: str, name: str) -> int:
        number = self._numbers.setdefault(key, len(self._ids))
        if number == len(self._ids):
            self._ids.append(name)
        return number

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents with these numbers."""
        rows = self._rows(numbers, ["title", "text", "metadata"])
        empty = {"title": "", "text": "", "metadata": "{}"}
        pairs = [(self._ids[number], rows.get(number, empty)) for number in numbers]
        return [unchecked_document(name, row["text"], row["title"], json.loads(row["metadata"])) for name, row in pairs]

    def sample(self, most: int) -> list[Document]:
        """Some documents, those that Milvus returns first."""
        rows = self._client("query", self._collection, "", limit=most, output_fields=["key", "id"])
        return self.documents([self._number(row["key"], row["id"]) for row in rows])

    def _rows(self, numbers: Sequence[int], columns: list[str]) -> dict[int, dict[str, Any]]:
        all_keys = list(self._numbers)
        keys = [all_keys[number] for number in dict.fromkeys(numbers)]
        rows: dict[int, dict[str, Any]] = {}
        for start in range(0, len(keys), ROWS_AT_ONCE):
            batch = keys[start : start + ROWS_AT_ONCE]
            response = self._client("get", self._collection, ids=batch, output_fields=["key", *columns])
            rows |= {self._numbers[row["key"]]: row for row in response}
        return rows

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents with these numbers."""
        return [self._ids[number] for number in numbers]

    def numbers_of(self, names: Sequence[str]) -> list[int | None]:
        """The numbers of the documents with these ids, looked up together; None where there is none."""
        keys = {name: key_of(name) for name in names if is_storable(name)}
        existing = set(existing_keys(self._client, self._collection, list(keys.values())))
        return [self._number(keys[name], name) if keys.get(name) in existing else None for name in names]

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """The vectors of the documents with these numbers, (numbers, dim), as they are stored."""
        rows = self._rows(numbers, ["vector"])
        return np.array([rows[number]["vector"] for number in numbers], np.float32)

    def counts(self, field: str) -> dict[str, int]:
        """See ``View``; only the first ``MAX_RANKED`` documents are counted."""
        rows = self._client("query", self._collection, "", limit=MAX_RANKED, output_fields=["metadata"])
        values = (fields.members_of(json.loads(row["metadata"]).get(field)) for row in rows)
        return fields.merge_spellings(
            Counter(member for members in values for member in members if isinstance(member, str))
        )


def key_of(name: str) -> str:
    """The key of the document with the id ``name``."""
    return digest_of([name])


def ends_of(metadata: Mapping[str, Any]) -> dict[str, float | str]:
    """The smallest and the largest value of each field of numbers or strings, in a form that Milvus can compare."""
    named_ends: dict[str, float | str] = {}
    for name, value in metadata.items():
        members = [member for member in fields.members_of(value) if not isinstance(member, bool)]
        if members:
            order = normalized if isinstance(members[0], str) else None
            ends = min(members, key=order), max(members, key=order)
            named_ends |= {short_hash(name) + end: _end(member) for end, member in zip(_ENDS, ends, strict=True)}
    return named_ends


def _end(value: Any) -> float | str:
    """A number as a float; a string as its first bytes in hexadecimal, which sort like the string."""
    return normalized(value).encode()[:_PREFIX_BYTES].hex() if isinstance(value, str) else float(value)


def existing_keys(client: Client, collection: str, keys: Sequence[str]) -> list[str]:
    """Those of ``keys`` that are in the collection, in the same order."""
    existing: set[str] = set()
    for start in range(0, len(keys), ROWS_AT_ONCE):
        batch = list(keys[start : start + ROWS_AT_ONCE])
        existing |= {row["key"] for row in client("get", collection, ids=batch, output_fields=["key"])}
    return [key for key in keys if key in existing]
