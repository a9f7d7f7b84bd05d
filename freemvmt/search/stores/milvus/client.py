"""The client of Milvus: addresses, a connection that raises errors of one line, and the schema of a collection.

``milvus://host:port/collection`` is a server (``milvus+tls://`` with encryption), ``FILE.db`` is a file of Milvus Lite.
The environment variable MILVUS_TOKEN holds the token of a server that requires one.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from freemvmt.errors import UserError, first_line
from freemvmt.runtime.optional import require

MAX_RANKED = 16_384  # the most hits that Milvus returns for one query
_TIMEOUT = 10.0  # seconds for a connection
_SCHEMES = {"milvus": "http", "milvus+tls": "https"}
_HNSW_PARAMETERS = {"M": 32, "efConstruction": 200}


@dataclass(frozen=True)
class MilvusAddress:
    """The address of a Milvus, in the form of pymilvus, and the base name of its collections."""

    uri: str
    collection: str

    @classmethod
    def of(cls, address: str) -> "MilvusAddress":
        """Parse ``address``; ``UserError`` when it is not valid."""
        usage = "give milvus://host:port/collection, or a file that ends in .db"
        if "://" not in address:
            if not address.endswith(".db") or "\0" in address:
                raise UserError(f"--store {address!r} is no place of documents; {usage}")
            path = Path(address).absolute()
            if not path.parent.is_dir():
                raise UserError(f"--store {address}: there is no folder {path.parent}; make it, or name another")
            return cls(str(path), "documents")
        try:
            parts = urlsplit(address)
            port = parts.port or 19530
        except ValueError as error:
            raise UserError(f"--store {address!r} is no address ({error}); {usage}") from error
        collection = parts.path.strip("/")
        if parts.scheme not in _SCHEMES or not parts.hostname or parts.query or parts.fragment:
            raise UserError(f"--store {address!r} is no address of a Milvus; {usage}")
        if parts.username is not None or parts.password is not None:
            raise UserError("--store holds a name or a password; take it out, and put the token into MILVUS_TOKEN")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", collection):
            raise UserError(f"--store names the collection {collection!r}; give letters, digits and _")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return cls(f"{_SCHEMES[parts.scheme]}://{host}:{port}", collection)

    def checked(self, path: Path) -> "MilvusAddress":
        """Return this place, read from ``path``; ``UserError`` unless ``of`` could have returned it."""
        remote = re.fullmatch(r"https?://[^/@\s]+:\d{1,5}", self.uri)
        if not remote and not (Path(self.uri).is_absolute() and self.uri.endswith(".db") and "\0" not in self.uri):
            raise UserError(f"{path} names no place of documents; index the corpus again")
        return self

    @property
    def embedded(self) -> bool:
        """Whether this is a local file of Milvus Lite."""
        return "://" not in self.uri

    def __str__(self) -> str:
        return self.uri


class Client:
    """Calls the methods of pymilvus's client by name; an error becomes a ``UserError`` of one line."""

    def __init__(self, place: MilvusAddress) -> None:
        pymilvus = require("pymilvus")
        if place.embedded:
            require("milvus_lite")
        for name in ("pymilvus", "milvus_lite", "grpc"):  # they also log every error that they raise
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._place = place
        self._errors = (pymilvus.MilvusException, OSError, ValueError)
        try:
            self._client = pymilvus.MilvusClient(place.uri, token=os.environ.get("MILVUS_TOKEN", ""), timeout=_TIMEOUT)
        except self._errors as error:
            advice = "close what else has it open" if place.embedded else "start it, or name another"
            raise UserError(f"Milvus at {place} cannot be reached ({_reason(error)}); {advice}") from error

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call ``method`` of pymilvus's client and return its result."""
        try:
            return getattr(self._client, method)(*args, **kwargs)
        except self._errors as error:
            reason = _reason(error)
            raise UserError(f"Milvus at {self._place} failed to {method}: {reason}; look at its log") from error

    def create(self, name: str, dim: int, kind: Literal["exact", "hnsw"]) -> None:
        """Make the collection ``name`` for vectors of ``dim`` dimensions."""
        pymilvus = require("pymilvus")
        types = pymilvus.DataType
        schema = self._client.create_schema()
        schema.add_field("key", types.VARCHAR, max_length=32, is_primary=True)
        for field, max_length in (("id", 512), ("title", 65_535), ("text", 65_535), ("metadata", 65_535)):
            schema.add_field(field, types.VARCHAR, max_length=max_length)
        for field in ("facets", "ends"):
            schema.add_field(field, types.JSON)
        schema.add_field("vector", types.FLOAT_VECTOR, dim=dim)
        indexes = self._client.prepare_index_params()
        vector_index = {"index_type": "HNSW", "params": _HNSW_PARAMETERS} if kind == "hnsw" else {"index_type": "FLAT"}
        indexes.add_index("vector", metric_type="IP", **vector_index)
        if self.has_bm25():
            schema.add_field("words", types.VARCHAR, max_length=65_535, enable_analyzer=True)
            schema.add_field("sparse", types.SPARSE_FLOAT_VECTOR)
            schema.add_function(pymilvus.Function("bm25", pymilvus.FunctionType.BM25, ["words"], ["sparse"]))
            parameters = {"bm25_k1": 1.2, "bm25_b": 0.75}
            indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25", params=parameters)
        self("create_collection", name, schema=schema, index_params=indexes, consistency_level="Strong")

    def has_bm25(self) -> bool:
        """Whether this Milvus has BM25: version 2.5 or later, or Milvus Lite."""
        version = str(self("get_server_version"))
        match = re.match(r"v?(\d+)\.(\d+)", version)
        return match is None or (int(match[1]), int(match[2])) >= (2, 5)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _reason(error: BaseException) -> str:
    return first_line(getattr(error, "message", "") or error)
