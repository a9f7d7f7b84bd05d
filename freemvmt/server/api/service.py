"""What the routes do: each request becomes calls of the retriever in a thread, and the thread makes the JSON too."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from freemvmt.config import Method
from freemvmt.data.documents import Document
from freemvmt.data.values import Places
from freemvmt.errors import NotFound, UserError
from freemvmt.search.retriever import Retriever
from freemvmt.server.api import embeddings
from freemvmt.server.api import requests as schemas
from freemvmt.server.api.batching import Batcher
from freemvmt.server.api.output import dumps, explanation_fields, hit_fields
from freemvmt.server.api.thread_pool import Workers
from freemvmt.server.http.errors import Refusal
from freemvmt.server.settings import ServeSettings

T = TypeVar("T")

METHODS: tuple[Method, ...] = ("hybrid", "dense", "bm25")

_SOME = {"string": "", "number": 0, "boolean": True}  # a value of each kind of field

_Kind = tuple[int, Method, float]  # of queries that can be searched together


class Service:
    """A retriever behind threads. Every method that answers gives the JSON of the answer, in UTF-8."""

    def __init__(self, retriever: Retriever, settings: ServeSettings) -> None:
        self.retriever = retriever
        self.settings = settings
        self.reading = Workers(settings.search_threads, settings.queue, settings.timeout, _one_core)
        self.writing = Workers(1, settings.queue, settings.timeout, _one_core)  # writes come one after the other
        self._batcher: Batcher[_Kind, bytes] | None = None
        if settings.batch > 1:
            self._batcher = Batcher(self._search_many, self.reading, settings.batch, settings.batch_window_ms / 1000)

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        return self.retriever.writable and not self.settings.read_only

    async def search(self, asked: schemas.SearchRequest) -> bytes:
        """The answer of POST /search."""
        if self._batcher is not None and not asked.explain and not asked.filter.root:
            return await self._batcher.search(asked.query, (asked.k, asked.method, asked.weight))
        return await self.reading.run(self._search, asked)

    def _search(self, asked: schemas.SearchRequest) -> bytes:
        started = time.perf_counter()
        found = self.retriever.search(
            asked.query, k=asked.k, method=asked.method, weight=asked.weight, filter=asked.filter.root or None
        )
        hits = [hit_fields(hit) for hit in found]
        if asked.explain:
            for hit in hits[: schemas.MOST_EXPLAINED]:
                self._explain_hit(asked.query, hit)
        return self._found(asked.query, (asked.k, asked.method, asked.weight), hits, started)

    def _explain_hit(self, query: str, hit: dict[str, Any]) -> None:
        with contextlib.suppress(NotFound):  # it may be deleted since it was found
            hit["explanation"] = explanation_fields(self.retriever.explain(query, hit["id"]))

    def _search_many(self, queries: list[str], kind: _Kind) -> list[bytes]:
        started = time.perf_counter()
        k, method, weight = kind
        found = self.retriever.search(queries, k=k, method=method, weight=weight)
        return [
            self._found(query, kind, [hit_fields(hit) for hit in hits], started)
            for query, hits in zip(queries, found, strict=True)
        ]

    def _found(self, query: str, kind: _Kind, hits: list[dict[str, Any]], started: float) -> bytes:
        return dumps(
            {
                "query": query,
                "method": kind[1],
                "k": kind[0],
                "took_ms": _milliseconds(started),
                "documents": len(self.retriever),
                "hits": hits,
            }
        )

    async def search_batch(self, asked: schemas.BatchRequest) -> bytes:
        """The answer of POST /search/batch."""
        return await self.reading.run(self._search_batch, asked)

    def _search_batch(self, asked: schemas.BatchRequest) -> bytes:
        started = time.perf_counter()
        found = self.retriever.search(
            asked.queries, k=asked.k, method=asked.method, weight=asked.weight, filter=asked.filter.root or None
        )
        results = [[hit_fields(hit) for hit in hits] for hits in found]
        took = _milliseconds(started)
        return dumps({"results": results, "method": asked.method, "k": asked.k, "took_ms": took})

    async def similar(self, asked: schemas.SimilarRequest) -> bytes:
        """The answer of POST /similar."""
        return await self.reading.run(self._similar, asked)

    def _similar(self, asked: schemas.SimilarRequest) -> bytes:
        started = time.perf_counter()
        found = self.retriever.similar(asked.id, k=asked.k, filter=asked.filter.root or None)
        hits = [hit_fields(hit) for hit in found]
        return dumps({"id": asked.id, "hits": hits, "took_ms": _milliseconds(started)})

    async def explain(self, asked: schemas.ExplainRequest) -> bytes:
        """The answer of POST /explain."""
        return await self.reading.run(self._explain, asked)

    def _explain(self, asked: schemas.ExplainRequest) -> bytes:
        return dumps({"id": asked.id, **explanation_fields(self.retriever.explain(asked.query, asked.id))})

    async def get(self, id: str) -> bytes:
        """The answer of GET /documents/{id}."""
        return await self.reading.run(self._get, id)

    def _get(self, id: str) -> bytes:
        document = self.retriever.get(id)
        fields = {"title": document.title, "text": document.text, "metadata": document.metadata}
        return dumps({"id": document.id, **fields})

    async def add(self, asked: schemas.AddRequest) -> bytes:
        """The answer of POST /documents. The documents are on disk when it comes."""
        self._check_writable()
        return await self.writing.run(self._add, asked)

    def _add(self, asked: schemas.AddRequest) -> bytes:
        places = Places("document")
        for number, new in enumerate(asked.documents):
            places.see(new.id, f"documents.{number}")
        documents = [Document(new.id, new.text, new.title, new.metadata.root) for new in asked.documents]
        try:
            done = self.retriever.add(documents)
        except UserError as error:  # sound in itself, but the bundle holds something else
            raise Refusal(409, "invalid_request", str(error)) from error
        counts = {"added": done.added, "replaced": done.replaced, "documents": len(self.retriever)}
        return dumps({**counts, "unseen": done.unseen})

    async def delete(self, id: str) -> bytes:
        """The answer of DELETE /documents/{id}."""
        self._check_writable()
        return await self.writing.run(self._delete, id)

    def _delete(self, id: str) -> bytes:
        if not self.retriever.delete([id]):
            raise NotFound(f"there is no document {id[:100]!r}")
        return dumps({"deleted": id, "documents": len(self.retriever)})

    def _check_writable(self) -> None:
        if not self.writable:
            raise Refusal(403, "read_only", "this server only reads; documents are added and deleted elsewhere")

    async def embeddings(self, asked: schemas.EmbeddingsRequest) -> bytes:
        """The answer of POST /v1/embeddings. Each block of texts has the time of a request: others come between."""
        model = self.retriever.model
        if model is None:
            raise UserError("these documents have no model beside them, so there are no vectors; ask for bm25")
        if asked.dimensions is not None:
            embeddings.check_size(asked.dimensions, self.sizes())
        model_id, blocks, count = self.model_id, [], 0
        for start in range(0, len(asked.input), schemas.MOST_IN_BATCH):
            texts = asked.input[start : start + schemas.MOST_IN_BATCH]
            rows, read = await self.reading.run(embeddings.encode, model, texts, asked.input_type, asked.dimensions)
            blocks.append(rows)
            count += read
        return await self.reading.run(
            lambda: dumps(embeddings.answer(np.concatenate(blocks), count, model_id, asked.encoding_format))
        )

    def sizes(self) -> list[int]:
        """How many numbers a vector may have: the model's own, and what it was trained to be cut to."""
        model = self.retriever.model
        return [] if model is None else [model.dim, *embeddings.trained_sizes(self.retriever.folder, model.dim)]

    @property
    def model_id(self) -> str:
        """What the model is called."""
        return str(self.retriever.about["model"]["id"])

    def models(self) -> bytes:
        """The answer of GET /v1/models."""
        return dumps({"object": "list", "data": [self._model()]})

    def model(self, id: str) -> bytes:
        """The answer of GET /v1/models/{id}."""
        if id != self.model_id:
            raise NotFound(f"there is no model {id[:60]!r}; the one model is {self.model_id}")
        return dumps(self._model())

    def _model(self) -> dict[str, Any]:
        return {"id": self.model_id, "object": "model", "created": 0, "owned_by": "two-towers"}

    async def info(self) -> bytes:
        """The answer of GET /info."""
        return await self.reading.run(self._info)

    def _info(self) -> bytes:
        about = self.retriever.about
        fields: dict[str, dict[str, Any]] = {}
        for name, kind in self.retriever.fields.items():
            fields[name] = {"type": kind}
            if kind == "string":
                fields[name]["values"] = self.retriever.values(name)
        return dumps(
            {
                "name": about["name"],
                "documents": len(self.retriever),
                "dim": about["dim"],
                "model": about["model"],
                "index": about["index"],
                "fields": fields,
                "methods": METHODS,
                "writable": self.writable,
                "limits": {
                    "k": schemas.MOST_HITS,
                    "query_characters": schemas.LONGEST_QUERY,
                    "batch": schemas.MOST_IN_BATCH,
                    "batch_k": schemas.MOST_HITS_IN_BATCH,
                    "embeddings": schemas.MOST_TEXTS,
                    "documents": schemas.MOST_DOCUMENTS,
                    "body_bytes": self.settings.body_bytes,
                },
            }
        )

    async def ready(self) -> bytes:
        """The answer of GET /ready: a search is made, so that it says what it means."""
        return await self.reading.run(self.warm_up)

    def warm_up(self) -> bytes:
        """Search once by every method, which loads what is loaded when first used."""
        try:
            for method in METHODS:
                self.retriever.search("ready", k=1, method=method)
            for name, kind in list(self.retriever.fields.items())[:1]:
                self.retriever.search("ready", k=1, filter={name: _SOME[kind]})
        except UserError as error:
            raise Refusal(503, "busy", f"the bundle cannot be searched: {error}", {"Retry-After": "10"}) from error
        return dumps({"status": "ready", "documents": len(self.retriever)})

    async def parse(self, read: Callable[[bytes], T], body: bytes) -> T:
        """``read(body)``, in a thread when it is long."""
        return read(body) if len(body) < 32_768 else await self.reading.run(read, body)

    def close(self) -> None:
        """Finish what has begun."""
        self.reading.close()
        self.writing.close()


def _one_core() -> None:
    """Keep a thread's searches on one core: threads that each start threads wait for one another."""
    import faiss

    faiss.omp_set_num_threads(1)
    if (torch := sys.modules.get("torch")) is not None:  # where ONNX graphs encode there is none
        torch.set_num_threads(1)


def _milliseconds(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)
