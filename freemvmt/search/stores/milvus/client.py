"""The way to Milvus: addresses, a connection whose errors are one line, and the collection that is made there.

``milvus://host:port/collection`` is a server (``milvus+tls://`` an encrypted one), ``FILE.db`` Milvus Lite in that
file. The token of a server that wants one stands in MILVUS_TOKEN.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from freemvmt.errors import UserError
from freemvmt.runtime.optional import needed

MOST = 16_384  # documents that Milvus ranks for one query
_PATIENCE = 10.0  # seconds for a connection
_SCHEMES = {"milvus": "http", "milvus+tls": "https"}
_LINKS = {"M": 32, "efConstruction": 200}


@dataclass(frozen=True)
class Place:
    """Where a Milvus is, as its client wants it, and what the collections there are called."""

    uri: str
    collection: str

    @classmethod
    def of(cls, address: str) -> "Place":
        """The place that ``address`` names; ``UserError`` where it names none."""
        wanted = "give milvus://host:port/collection, or a file that ends in .db"
        if "://" not in address:
            if not address.endswith(".db") or "\0" in address:
                raise UserError(f"--store {address!r} is no place of documents; {wanted}")
            path = Path(address).absolute()
            if not path.parent.is_dir():
                raise UserError(f"--store {address}: there is no folder {path.parent}; make it, or name another")
            return cls(str(path), "documents")
        try:
            parts = urlsplit(address)
            port = parts.port or 19530
        except ValueError as error:
            raise UserError(f"--store {address!r} is no address ({error}); {wanted}") from error
        collection = parts.path.strip("/")
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
            raise UserError(f"--store {address!r} is no address of a Milvus; {wanted}")
        if parts.username is not None or parts.password is not None:
            raise UserError("--store holds a name or a password; take it out, and put the token into MILVUS_TOKEN")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", collection):
            raise UserError(f"--store names the collection {collection!r}; give letters, digits and _")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{_SCHEMES[parts.scheme]}://{host}:{port}", collection)

    def checked(self, path: Path) -> "Place":
        """This, read from ``path``; ``UserError`` unless it is such a place as ``of`` gives."""
        remote = re.fullmatch(r"https?://[^/@\s]+:\d{1,5}", self.uri)
        if not remote and not (Path(self.uri).is_absolute() and self.uri.endswith(".db") and "\0" not in self.uri):
            raise UserError(f"{path} names no place of documents; index the corpus again")
        return self

    @property
    def embedded(self) -> bool:
        """Whether it is a file of this machine."""
        return "://" not in self.uri

    def __str__(self) -> str:
        return self.uri


class Client:
    """Calls a method of pymilvus's client by its name; what goes wrong is a ``UserError`` of one line."""

    def __init__(self, place: Place) -> None:
        pymilvus = needed("pymilvus")
        if place.embedded:
            needed("milvus_lite")
        for name in ("pymilvus", "milvus_lite", "grpc"):  # they write what they raise too
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._place = place
        self._errors = (pymilvus.MilvusException, OSError, ValueError)
        try:
            self._client = pymilvus.MilvusClient(place.uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=_PATIENCE)
        except self._errors as error:
            advice = "close what else has it open" if place.embedded else "start it, or name another"
            raise UserError(f"Milvus at {place} cannot be reached ({_reason(error)}); {advice}") from error

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """What the method of that name returns."""
        try:
            return getattr(self._client, method)(*args, **kwargs)
        except self._errors as error:
            reason = _reason(error)
            raise UserError(f"Milvus at {self._place} failed to {method}: {reason}; look at its log") from error

    def create(self, name: str, dim: int, kind: Literal["exact", "hnsw"]) -> None:
        """Make the collection ``name`` for documents of ``dim`` dimensions."""
        pymilvus = needed("pymilvus")
        kinds = pymilvus.DataType
        schema = self._client.create_schema()
        schema.add_field("key", kinds.VARCHAR, max_length=32, is_primary=True)
        for field, longest in (("id", 512), ("title", 65_535), ("text", 65_535), ("metadata", 65_535)):
            schema.add_field(field, kinds.VARCHAR, max_length=longest)
        for field in ("facets", "ends"):
            schema.add_field(field, kinds.JSON)
        schema.add_field("vector", kinds.FLOAT_VECTOR, dim=dim)
        indexes = self._client.prepare_index_params()
        links = {"index_type": "HNSW", "params": _LINKS} if kind == "hnsw" else {"index_type": "FLAT"}
        indexes.add_index("vector", metric_type="IP", **links)
        if self.has_bm25():
            schema.add_field("words", kinds.VARCHAR, max_length=65_535, enable_analyzer=True)
            schema.add_field("sparse", kinds.SPARSE_FLOAT_VECTOR)
            schema.add_function(pymilvus.Function("bm25", pymilvus.FunctionType.BM25, ["words"], ["sparse"]))
            weights = {"bm25_k1": 1.2, "bm25_b": 0.75}
            indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=weights)
        self("create_collection", name, schema=schema, index_params=indexes, consistency_level="Strong")

    def has_bm25(self) -> bool:
        """Whether this Milvus weighs words: from 2.5 on, and Milvus Lite."""
        version = str(self("get_server_version"))
        found = re.match(r"v?(\d+)\.(\d+)", version)
        return found is None or (int(found[1]), int(found[2])) >= (2, 5)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "message", "") or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
