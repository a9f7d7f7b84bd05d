"""What is in a collection of Milvus: searched there, and decided here where Milvus cannot.

A document's key is a hash of its id, a facet a hash of its value, and the end of a range of text is hexadecimal: no
text of a user ever stands in an expression as it is. Milvus narrows a search down to what may match; what does is
decided here, by the metadata that come back.
Words are analysed here as those of a bundle on disk are, and weighed by Milvus, from 2.5 on.
"""

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from freemvmt.data.documents import Document, is_storable, stored_document
from freemvmt.errors import UserError
from freemvmt.search.index.analysis import normalized, plain_words
from freemvmt.search.index.ranking import Ranking, Vectors
from freemvmt.search.stores import filters as fields
from freemvmt.search.stores.base import Among
from freemvmt.search.stores.columns import Columns
from freemvmt.search.stores.filters import Filter, Kind
from freemvmt.search.stores.milvus.client import MOST, Client

ROWS_AT_ONCE = 1000  # of one request by keys
_QUERIES_AT_ONCE = 64
_ENDS = ("_least", "_most")  # of the names of a field's least and largest value
_ENOUGH = 32  # bytes of a text that a range is narrowed by
_LISTED = 32  # numbers of an "any of" up to which each is sent


@dataclass(frozen=True, eq=False)
class Narrowed(Among):
    """A filter: an expression that all matching documents meet, and whether only those do."""

    conditions: Filter
    expression: str
    whole: bool


class MilvusView:
    """See ``View``. What a search found has a number here, in the order in which it was found.

    A document that is deleted between two requests of one search comes back with its id alone.
    """

    def __init__(self, client: Client, collection: str, kinds: Callable[[], dict[str, Kind]], has_words: bool) -> None:
        self._client, self._collection = client, collection
        self._read_kinds, self._has_words = kinds, has_words
        self._numbers: dict[str, int] = {}  # by key
        self._ids: list[str] = []

    def __len__(self) -> int:
        return int(self._client("query", self._collection, "", output_fields=["count(*)"])[0]["count(*)"])

    @functools.cached_property
    def kinds(self) -> dict[str, Kind]:
        """Metadata fields that can be filtered on."""
        return self._read_kinds()

    def among(self, conditions: Filter) -> Narrowed:
        """The documents that meet ``conditions``, as far as Milvus can tell them apart."""
        fields.check(conditions, self.kinds)
        facets = fields.facets_wanted(conditions)
        parts = [f'json_contains_any(facets["all"], {json.dumps(group)})' for group in facets]
        parts += [part for name, condition in conditions.items() for part in self._bounds(name, condition)]
        return Narrowed(conditions, " and ".join(parts), whole=len(facets) == len(conditions))

    def _bounds(self, name: str, condition: Any) -> Iterator[str]:
        """What holds for the ends (``ends_of``) of a field in which one value meets ``condition``."""
        least, most = (f'ends["{short(name)}{end}"]' for end in _ENDS)
        if isinstance(condition, dict):
            for sign, bound in condition.items():
                end = _end(bound)
                strict = (
                    sign in ("gt", "lt") and isinstance(end, str) and len(end) < 2 * _ENOUGH
                )  # else it may be rounded
                compared = f"{most} >" if sign in ("gte", "gt") else f"{least} <"
                yield f"{compared}{'' if strict else '='} {json.dumps(end)}"
        elif self.kinds[name] == "number":
            values = sorted({float(value) for value in (condition if isinstance(condition, list) else [condition])})
            if len(values) <= _LISTED:
                around = [f"({least} <= {value!r} and {most} >= {value!r})" for value in values]
                yield f"({' or '.join(around)})"
            else:
                yield f"{most} >= {values[0]!r} and {least} <= {values[-1]!r}"

    def dense(self, queries: Vectors, k: int, among: Among | None) -> Ranking:
        """The nearest documents."""
        return self._ranked("vector", queries.tolist(), k, among)

    def lexical(self, queries: Sequence[str], k: int, among: Among | None) -> Ranking:
        """The best documents by their words; ``UserError`` where this Milvus has no BM25."""
        if not self._has_words:
            version = self._client("get_server_version")
            raise UserError(f"Milvus {version} has no BM25, which came with 2.5; search with --method dense")
        words = [plain_words(query) for query in queries]
        asked = [row for row, text in enumerate(words) if text]
        found = self._ranked("sparse", [words[row] for row in asked], k, among)
        numbers = np.full((len(queries), found.documents.shape[1]), -1, np.int64)
        scores = np.zeros(numbers.shape, np.float32)
        numbers[asked], scores[asked] = found.documents, np.abs(found.scores)  # Lite gives a distance: below zero
        return Ranking(numbers, scores)

    def _ranked(self, field: str, wanted: list[Any], k: int, among: Among | None) -> Ranking:
        assert among is None or isinstance(among, Narrowed)
        found = [
            row
            for start in range(0, len(wanted), _QUERIES_AT_ONCE)
            for row in self._matching(field, wanted[start : start + _QUERIES_AT_ONCE], k, among)
        ]
        width = max(map(len, found), default=0)
        numbers, scores = np.full((len(found), width), -1, np.int64), np.zeros((len(found), width), np.float32)
        for row, hits in enumerate(found):
            numbers[row, : len(hits)] = [self._numbered(hit["entity"]["key"], hit["entity"]["id"]) for hit in hits]
            scores[row, : len(hits)] = [hit["distance"] for hit in hits]
            scores[row, len(hits) :] = scores[row, len(hits) - 1] if hits else 0
        return Ranking(numbers, scores)

    def _matching(self, field: str, wanted: list[Any], k: int, among: Narrowed | None) -> list[list[dict[str, Any]]]:
        """The best ``k`` hits of each query that match."""
        limit = min(k, MOST)
        exact = among is None or among.whole
        columns = ["key", "id"] if exact else ["key", "id", "metadata"]
        wide = {"params": {"ef": max(limit, 128 if among is None else 512)}} if field == "vector" else {}
        while True:  # what does not match takes up places: ask for more until enough do, or all were seen
            found = self._client(
                "search", self._collection, wanted, anns_field=field, limit=limit, search_params=wide,
                filter=among.expression if among else "", output_fields=columns,
            )  # fmt: skip
            rows = [list(row) for row in found]
            kept = rows if among is None or exact else [self._exactly(row, among) for row in rows]
            if exact or limit == MOST or all(len(a) >= k or len(b) < limit for a, b in zip(kept, rows, strict=True)):
                return [row[:k] for row in kept]
            limit = min(4 * limit, MOST)

    def _exactly(self, hits: list[dict[str, Any]], among: Narrowed) -> list[dict[str, Any]]:
        metadata = [json.loads(hit["entity"]["metadata"]) for hit in hits]
        mask: NDArray[np.bool_] = Columns.of(metadata, self.kinds).mask(among.conditions)
        return [hit for hit, keep in zip(hits, mask.tolist(), strict=True) if keep]

    def _numbered(self, key: str, name: str) -> int:
        number = self._numbers.setdefault(key, len(self._ids))
        if number == len(self._ids):
            self._ids.append(name)
        return number

    def documents(self, numbers: Sequence[int]) -> list[Document]:
        """The documents of those numbers."""
        rows = self._get(numbers, ["title", "text", "metadata"])
        empty = {"title": "", "text": "", "metadata": "{}"}
        found = [(self._ids[number], rows.get(number, empty)) for number in numbers]
        return [stored_document(name, row["text"], row["title"], json.loads(row["metadata"])) for name, row in found]

    def _get(self, numbers: Sequence[int], columns: list[str]) -> dict[int, dict[str, Any]]:
        keys = list(self._numbers)
        wanted = [keys[number] for number in dict.fromkeys(numbers)]
        found: dict[int, dict[str, Any]] = {}
        for start in range(0, len(wanted), ROWS_AT_ONCE):
            part = wanted[start : start + ROWS_AT_ONCE]
            rows = self._client("get", self._collection, ids=part, output_fields=["key", *columns])
            found |= {self._numbers[row["key"]]: row for row in rows}
        return found

    def ids(self, numbers: Sequence[int]) -> list[str]:
        """The ids of the documents of those numbers."""
        return [self._ids[number] for number in numbers]

    def number_of(self, name: str) -> int | None:
        """The number of the document with that id, or None."""
        if not is_storable(name):
            return None
        key = key_of(name)
        return self._numbered(key, name) if there(self._client, self._collection, [key]) else None

    def known(self, ids: Sequence[str]) -> int:
        """How many of ``ids`` are those of a document."""
        return len(there(self._client, self._collection, [key_of(name) for name in ids if is_storable(name)]))

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """(numbers, dim), as they are stored."""
        rows = self._get(numbers, ["vector"])
        return np.array([rows[number]["vector"] for number in numbers], np.float32)

    def counts(self, field: str) -> dict[str, int]:
        """As ``View`` says, in as many documents as Milvus gives at once."""
        rows = self._client("query", self._collection, "", limit=MOST, output_fields=["metadata"])
        values = (fields.members_of(json.loads(row["metadata"]).get(field)) for row in rows)
        return fields.folded(Counter(member for members in values for member in members if isinstance(member, str)))


def key_of(name: str) -> str:
    """The key of the document with that id."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def ends_of(metadata: Mapping[str, Any]) -> dict[str, float | str]:
    """The least and the largest value of each field of numbers or text, in a form by which Milvus can narrow ranges."""
    found: dict[str, float | str] = {}
    for name, value in metadata.items():
        members = [member for member in fields.members_of(value) if not isinstance(member, bool)]
        if members:
            by = normalized if isinstance(members[0], str) else None
            ends = min(members, key=by), max(members, key=by)
            found |= {short(name) + end: _end(member) for end, member in zip(_ENDS, ends, strict=True)}
    return found


def _end(value: Any) -> float | str:
    """The float nearest to a number; of a text its first bytes, which order as the text does, in hexadecimal."""
    return normalized(value).encode()[:_ENOUGH].hex() if isinstance(value, str) else float(value)


def short(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def there(client: Client, collection: str, keys: Sequence[str]) -> list[str]:
    """Those of ``keys`` that are there, in their order."""
    found: set[str] = set()
    for start in range(0, len(keys), ROWS_AT_ONCE):
        part = list(keys[start : start + ROWS_AT_ONCE])
        found |= {row["key"] for row in client("get", collection, ids=part, output_fields=["key"])}
    return [key for key in keys if key in found]
