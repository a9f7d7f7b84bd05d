"""A store in Milvus, in a local file (Milvus Lite) or on a server."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from freemvmt.data.documents import Document, unchecked_document
from freemvmt.errors import UserError
from freemvmt.search.index.analysis import plain_words
from freemvmt.search.index.ranking import Vectors
from freemvmt.search.stores.base import BundleReplaced, Cuts
from freemvmt.search.stores.filters import FieldKind, check_kinds, facets_of, kinds_of, short_hash
from freemvmt.search.stores.layout import Identity, identity_of
from freemvmt.search.stores.milvus.client import Client, MilvusAddress
from freemvmt.search.stores.milvus.view import ROWS_AT_ONCE, MilvusView, ends_of, existing_keys, key_of
from freemvmt.storage.files import is_storable

MAX_TEXT_BYTES = 65_535  # the longest text that Milvus stores
_FIELD_PREFIX = "two-towers.field."  # of the properties of a collection that name its metadata fields
_BYTES_AT_ONCE = 8_000_000


class MilvusStore:
    """The documents of ``collection`` at ``place``, which the bundle in ``folder`` names.

    Several processes may search and change them. A change of many documents is sent in several requests; each request
    is applied completely or not at all.
    """

    def __init__(self, folder: Path, identity: Identity, place: MilvusAddress, collection: str) -> None:
        self._folder, self._identity = folder, identity
        self.collection = collection
        self._client = Client(place)
        if not self._client("has_collection", collection):
            raise UserError(f"{place} has no collection {collection}, which {folder} names; index the corpus again")
        self._client("load_collection", collection)
        description = self._client("describe_collection", collection)
        columns = {field["name"]: field for field in description["fields"]}
        if not columns.keys() >= {"key", "id", "title", "text", "metadata", "facets", "ends", "vector"}:
            raise UserError(f"{place}: the collection {collection} is none of ours; index the corpus again")
        self.dim = int(columns["vector"]["params"]["dim"])
        self._has_words = "words" in columns

    @property
    def writable(self) -> bool:
        """Always true; the server may still refuse a change when it is made."""
        return True

    @property
    def replaced(self) -> bool:
        """Whether another bundle has replaced the one that names this collection."""
        try:
            return identity_of(self._folder) != self._identity
        except OSError:
            return False

    def _check_not_replaced(self) -> None:
        if self.replaced:
            raise BundleReplaced(f"{self._folder} was replaced by another bundle; open it again")

    def refresh(self) -> bool:
        """Always false: every search sees all changes, so there is nothing to load."""
        return False

    def view(self) -> "MilvusView":
        """The current state."""
        return MilvusView(self._client, self.collection, self._kinds, self._has_words)

    def _kinds(self) -> dict[str, FieldKind]:
        properties = self._client("describe_collection", self.collection).get("properties") or {}
        kinds = dict(json.loads(value) for name, value in sorted(properties.items()) if name.startswith(_FIELD_PREFIX))
        check_kinds(self._folder, kinds)
        return kinds

    def add(self, documents: Sequence[Document], vectors: Vectors, cuts: Cuts = (), deleted: Sequence[str] = ()) -> int:
        """Add documents, each replacing the one with its id; return how many were replaced. Then delete others.

        Documents stay whole.
        """
        assert not any(cuts)
        self._check_not_replaced()
        known_kinds = self._kinds()
        new_kinds: dict[str, FieldKind] = {}
        for document in documents:
            new_kinds |= kinds_of(document.metadata, {**known_kinds, **new_kinds}, f"document {document.id!r}")
        rows = [self._row(document, vector) for document, vector in zip(documents, vectors, strict=True)]
        replaced = len(existing_keys(self._client, self.collection, [row["key"] for row in rows]))
        self._add_fields(new_kinds)
        self._write(rows)
        self.delete(deleted)
        return replaced

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Delete documents for good; return the ids of those that existed."""
        self._check_not_replaced()
        names = {key_of(name): name for name in dict.fromkeys(ids) if is_storable(name)}
        keys = existing_keys(self._client, self.collection, list(names))
        for start in range(0, len(keys), ROWS_AT_ONCE):
            self._client("delete", self.collection, ids=keys[start : start + ROWS_AT_ONCE])
        return [names[key] for key in keys]

    def fill(
        self,
        documents: Iterable[Document],
        vectors: Iterable[Vectors],
        kinds: dict[str, FieldKind],
        done: Callable[[int], None],
    ) -> None:
        """Add the documents of a new collection; ``done`` gets the number of documents after each request."""
        self._add_fields(kinds)
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

    def _add_fields(self, kinds: dict[str, FieldKind]) -> None:
        if kinds:
            properties = {_FIELD_PREFIX + short_hash(name): json.dumps([name, kind]) for name, kind in kinds.items()}
            self._client("alter_collection_properties", self.collection, properties=properties)

    def _row(self, document: Document, vector: Vectors) -> dict[str, Any]:
        metadata = json.dumps(document.metadata, ensure_ascii=False)
        row: dict[str, Any] = {
            "key": key_of(document.id), "id": document.id, "title": document.title, "text": document.text,
            "metadata": metadata, "facets": {"all": facets_of(document.metadata)}, "vector": vector.tolist(),
            "ends": ends_of(document.metadata),
        }  # fmt: skip
        if self._has_words:
            row["words"] = plain_words(document.content)
        for name in ("title", "text", "metadata", "words"):
            if len(row.get(name, "").encode()) > MAX_TEXT_BYTES:
                raise UserError(
                    f"document {document.id!r}: its {name} is over {MAX_TEXT_BYTES:,} bytes; cut it for Milvus"
                )
        return row

    def _write(self, rows: list[dict[str, Any]]) -> None:
        for batch in _batches(rows):
            self._client("upsert", self.collection, batch)

    def sample(self, limit: int) -> tuple[list[Document], Vectors]:
        """At most ``limit`` documents and their vectors, (documents, dim)."""
        columns = ["id", "title", "text", "vector"]
        rows = self._client("query", self.collection, "", limit=limit, output_fields=columns)
        documents = [unchecked_document(row["id"], row["text"], row["title"], {}) for row in rows]
        return documents, np.array([row["vector"] for row in rows], np.float32)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _batches(rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """``rows`` in batches that fit into one request."""
    batch: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        row_size = sum(len(value) for value in row.values() if isinstance(value, str)) * 3 + 9 * len(row["vector"])
        if batch and (len(batch) == ROWS_AT_ONCE or size + row_size > _BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row_size
    if batch:
        yield batch
