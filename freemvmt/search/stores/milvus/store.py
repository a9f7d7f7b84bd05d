"""Documents in Milvus, in a file of this machine (Milvus Lite) or on a server, through the same client."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freemvmt.data.documents import Document, is_storable, stored_document
from freemvmt.errors import UserError
from freemvmt.search.index.analysis import plain_words
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.base import Replaced
from freemvmt.search.stores.filters import Kind, check_kinds, facets_of, kinds_of
from freemvmt.search.stores.layout import Identity, identity_of
from freemvmt.search.stores.milvus.client import Client, Place
from freemvmt.search.stores.milvus.view import ROWS_AT_ONCE, MilvusView, ends_of, key_of, short, there

LONGEST = 65_535  # bytes of a text in Milvus
_FIELD = "two-towers.field."  # a collection's properties that say which fields it has
_BYTES_AT_ONCE = 8_000_000


class MilvusStore:
    """The documents of ``collection`` at ``place``, which the bundle in ``folder`` names.

    Several processes may search and change them. A change of many documents is sent in parts, each of which is there
    whole or not at all.
    """

    def __init__(self, folder: Path, identity: Identity, place: Place, collection: str) -> None:
        self._folder, self._identity = folder, identity
        self.collection = collection
        self._client = Client(place)
        if not self._client("has_collection", collection):
            raise UserError(f"{place} has no collection {collection}, which {folder} names; index the corpus again")
        self._client("load_collection", collection)
        described = self._client("describe_collection", collection)
        known = {field["name"]: field for field in described["fields"]}
        if not known.keys() >= {"key", "id", "title", "text", "metadata", "facets", "ends", "vector"}:
            raise UserError(f"{place}: the collection {collection} is none of ours; index the corpus again")
        self.dim = int(known["vector"]["params"]["dim"])
        self._has_words = "words" in known

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted: what the server lets this client do is seen when it is done."""
        return True

    @property
    def replaced(self) -> bool:
        """Whether another bundle has taken the place of the one that names this collection."""
        try:
            return identity_of(self._folder) != self._identity
        except OSError:
            return False

    def _check_place(self) -> None:
        if self.replaced:
            raise Replaced(f"{self._folder} was replaced by another bundle; open it again")

    def refresh(self) -> bool:
        """Every search sees what is there: there is nothing to take up."""
        return False

    def view(self) -> "MilvusView":
        """What is there now."""
        return MilvusView(self._client, self.collection, self._kinds, self._has_words)

    def _kinds(self) -> dict[str, Kind]:
        properties = self._client("describe_collection", self.collection).get("properties") or {}
        found = dict(json.loads(value) for name, value in sorted(properties.items()) if name.startswith(_FIELD))
        check_kinds(self._folder, found)
        return found

    def add(self, documents: Sequence[Document], vectors: Vectors) -> int:
        """Put documents in, each in the place of one with its id; return how many were replaced."""
        self._check_place()
        known = self._kinds()
        new: dict[str, Kind] = {}
        for document in documents:
            new |= kinds_of(document.metadata, {**known, **new}, f"document {document.id!r}")
        rows = [self._row(document, vector) for document, vector in zip(documents, vectors, strict=True)]
        replaced = len(there(self._client, self.collection, [row["key"] for row in rows]))
        self._name_fields(new)
        self._write(rows)
        return replaced

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Take documents out, for good; return the ids that were there."""
        self._check_place()
        keys = {key_of(name): name for name in dict.fromkeys(ids) if is_storable(name)}
        found = there(self._client, self.collection, list(keys))
        for start in range(0, len(found), ROWS_AT_ONCE):
            self._client("delete", self.collection, ids=found[start : start + ROWS_AT_ONCE])
        return [keys[key] for key in found]

    def fill(
        self,
        documents: Iterable[Document],
        vectors: Iterable[Vectors],
        kinds: dict[str, Kind],
        done: Callable[[int], None],
    ) -> None:
        """Put the documents of a whole corpus in; ``done`` is told how many were sent."""
        self._name_fields(kinds)
        rows: list[dict[str, Any]] = []
        for document, vector in zip(documents, (vector for block in vectors for vector in block), strict=True):
            rows.append(self._row(document, vector))
            if len(rows) == ROWS_AT_ONCE:
                self._write(rows)
                done(len(rows))
                rows = []
        self._write(rows)
        done(len(rows))
        self._client("flush", self.collection)

    def _name_fields(self, kinds: dict[str, Kind]) -> None:
        if kinds:
            named = {_FIELD + short(name): json.dumps([name, kind]) for name, kind in kinds.items()}
            self._client("alter_collection_properties", self.collection, properties=named)

    def _row(self, document: Document, vector: Vectors) -> dict[str, Any]:
        plain = json.dumps(document.metadata, ensure_ascii=False)
        row: dict[str, Any] = {
            "key": key_of(document.id), "id": document.id, "title": document.title, "text": document.text,
            "metadata": plain, "facets": {"all": facets_of(document.metadata)}, "vector": vector.tolist(),
            "ends": ends_of(document.metadata),
        }  # fmt: skip
        if self._has_words:
            row["words"] = plain_words(document.content)
        for name in ("title", "text", "metadata", "words"):
            if len(row.get(name, "").encode()) > LONGEST:
                raise UserError(f"document {document.id!r}: its {name} is over {LONGEST:,} bytes; cut it for Milvus")
        return row

    def _write(self, rows: list[dict[str, Any]]) -> None:
        for part in _parts(rows):
            self._client("upsert", self.collection, part)

    def sample(self, most: int) -> tuple[list[Document], Vectors]:
        """Some documents and their vectors (documents, dim), as many as ``most``."""
        columns = ["id", "title", "text", "vector"]
        rows = self._client("query", self.collection, "", limit=most, output_fields=columns)
        documents = [stored_document(row["id"], row["text"], row["title"], {}) for row in rows]
        return documents, np.array([row["vector"] for row in rows], np.float32)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _parts(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """``rows`` in parts that one request holds."""
    part: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        own = sum(len(value) for value in row.values() if isinstance(value, str)) * 3 + 9 * len(row["vector"])
        if part and (len(part) == ROWS_AT_ONCE or size + own > _BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(row)
        size += own
    if part:
        yield part
