"""The work behind the routes: a thread calls the retriever for each request, and makes the JSON of the response."""

import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from freemvmt.config import Method
from freemvmt.data.documents import Document
from freemvmt.data.values import FirstPlaces
from freemvmt.errors import NotFound, UserError
from freemvmt.search.hits import hit_fields
from freemvmt.search.retriever import Retriever
from freemvmt.server.api import embeddings
from freemvmt.server.api import requests as schemas
from freemvmt.server.api.batching import Batcher
from freemvmt.server.api.output import dumps, explanation_fields
from freemvmt.server.api.thread_pool import ThreadPool, one_core
from freemvmt.server.http.errors import Refusal
from freemvmt.server.settings import ServeSettings

T = TypeVar("T")

METHODS: tuple[Method, ...] = ("hybrid", "dense", "bm25")

_SAMPLE_VALUES = {"string": "", "number": 0, "boolean": True}  # one value for each kind of field

_Kind = tuple[int, Method, float | None, bool]  # k, method, weight, passages: queries of one kind go together


class Service:
    """A retriever behind thread pools. Each route has a method that returns the JSON of its response, in UTF-8."""

    def __init__(self, retriever: Retriever, settings: ServeSettings) -> None:
        self.retriever = retriever
        self.settings = settings
        self.read_pool = ThreadPool(settings.search_threads, settings.queue, settings.timeout, one_core)
        self.write_pool = ThreadPool(1, settings.queue, settings.timeout, one_core)  # one write at a time
        # The cross-encoder has threads of its own: searches without it never wait behind it.
        self.rerank_pool = ThreadPool(1, settings.queue, settings.timeout, one_core)
        self.pools = (self.read_pool, self.write_pool, self.rerank_pool)
        self._batcher: Batcher[_Kind, bytes] | None = None
        if settings.batch > 1:
            self._batcher = Batcher(self._search_many, self.read_pool, settings.batch, settings.batch_window_ms / 1000)

    @property
    def writable(self) -> bool:
        """Whether documents can be added and deleted."""
        return self.retriever.writable and not self.settings.read_only

    async def search(self, request: schemas.SearchRequest) -> bytes:
        """The response to POST /search."""
        if depth := self._rerank_depth(request.rerank):
            return await self.rerank_pool.run(self._search, request, depth)
        if self._batcher is not None and not request.explain and not request.filter.root:
            return await self._batcher.search(request.query, _kind_of(request))
        return await self.read_pool.run(self._search, request)

    def _rerank_depth(self, asked: bool | int | None) -> int:
        """The number of hits that the cross-encoder reads for a request; ``UserError`` when there is none to ask."""
        if self.retriever.reranker is None:
            if asked:
                raise UserError("this server has no cross-encoder; leave rerank out, or start it with --rerank MODEL")
            return 0
        return self.settings.depth if asked is None or asked is True else int(asked)

    def _search(self, request: schemas.SearchRequest, rerank: int = 0) -> bytes:
        start = time.perf_counter()
        results = self.retriever.search(request.query, **_arguments_of(request), rerank=rerank)
        hits = [hit_fields(hit) for hit in results]
        if request.explain:
            for hit in hits[: schemas.MAX_EXPLAINED]:
                self._explain_hit(request.query, hit)
        return self._search_response(request.query, _kind_of(request), hits, start)

    def _explain_hit(self, query: str, hit: dict[str, Any]) -> None:
        with contextlib.suppress(NotFound):  # it may have been deleted since the search
            first = hit["place"]["start"] if "place" in hit else None
            hit["explanation"] = explanation_fields(self.retriever.explain(query, hit["id"], first))

    def _search_many(self, queries: list[str], kind: _Kind) -> list[bytes]:
        start = time.perf_counter()
        k, method, weight, passages = kind
        results = self.retriever.search(queries, k=k, method=method, weight=weight, passages=passages, rerank=0)
        return [
            self._search_response(query, kind, [hit_fields(hit) for hit in hits], start)
            for query, hits in zip(queries, results, strict=True)
        ]

    def _search_response(self, query: str, kind: _Kind, hits: list[dict[str, Any]], start: float) -> bytes:
        return dumps(
            {
                "query": query,
                "method": kind[1],
                "k": kind[0],
                "took_ms": _milliseconds(start),
                "documents": len(self.retriever),
                "hits": hits,
            }
        )

    async def search_batch(self, request: schemas.BatchRequest) -> bytes:
        """The response to POST /search/batch."""
        return await self.read_pool.run(self._search_batch, request)

    def _search_batch(self, request: schemas.BatchRequest) -> bytes:
        start = time.perf_counter()
        results = self.retriever.search(request.queries, **_arguments_of(request), rerank=0)
        hits_by_query = [[hit_fields(hit) for hit in hits] for hits in results]
        took_ms = _milliseconds(start)
        return dumps({"results": hits_by_query, "method": request.method, "k": request.k, "took_ms": took_ms})

    async def similar(self, request: schemas.SimilarRequest) -> bytes:
        """The response to POST /similar."""
        return await self.read_pool.run(self._similar, request)

    def _similar(self, request: schemas.SimilarRequest) -> bytes:
        start = time.perf_counter()
        results = self.retriever.similar(request.id, k=request.k, filter=request.filter.root or None)
        hits = [hit_fields(hit) for hit in results]
        return dumps({"id": request.id, "hits": hits, "took_ms": _milliseconds(start)})

    async def explain(self, request: schemas.ExplainRequest) -> bytes:
        """The response to POST /explain."""
        return await self.read_pool.run(self._explain, request)

    def _explain(self, request: schemas.ExplainRequest) -> bytes:
        return dumps({"id": request.id, **explanation_fields(self.retriever.explain(request.query, request.id))})

    async def get(self, id: str) -> bytes:
        """The response to GET /documents/{id}."""
        return await self.read_pool.run(self._get, id)

    def _get(self, id: str) -> bytes:
        document = self.retriever.get(id)
        fields = {"title": document.title, "text": document.text, "metadata": document.metadata}
        return dumps({"id": document.id, **fields})

    async def add(self, request: schemas.AddRequest) -> bytes:
        """The response to POST /documents. The documents are on disk before it is sent."""
        self._check_writable()
        return await self.write_pool.run(self._add, request)

    def _add(self, request: schemas.AddRequest) -> bytes:
        places = FirstPlaces("document")
        for number, new in enumerate(request.documents):
            places.see(new.id, f"documents.{number}")
        documents = [Document(new.id, new.text, new.title, new.metadata.root) for new in request.documents]
        try:
            change = self.retriever.add(documents)
        except UserError as error:  # valid documents that do not fit those in the bundle
            raise Refusal(409, "invalid_request", str(error)) from error
        counts = {"added": change.added, "replaced": change.replaced, "documents": len(self.retriever)}
        return dumps({**counts, "unseen": change.unseen})

    async def delete(self, id: str) -> bytes:
        """The response to DELETE /documents/{id}."""
        self._check_writable()
        return await self.write_pool.run(self._delete, id)

    def _delete(self, id: str) -> bytes:
        if not self.retriever.delete([id]):
            raise NotFound(f"there is no document {id[:100]!r}")
        return dumps({"deleted": id, "documents": len(self.retriever)})

    def _check_writable(self) -> None:
        if not self.writable:
            raise Refusal(403, "read_only", "this server only reads; documents are added and deleted elsewhere")

    async def embeddings(self, request: schemas.EmbeddingsRequest) -> bytes:
        """The response to POST /v1/embeddings.

        Texts are encoded block by block. Each block has its own timeout; other requests can run between two blocks.
        """
        await self.read_pool.run(self.retriever.refresh)  # its query tower may have been swapped
        model = self.retriever.model
        if model is None:
            raise UserError("these documents have no model beside them, so there are no vectors; ask for bm25")
        if request.dimensions is not None:
            embeddings.check_size(request.dimensions, self.sizes())
        model_id, blocks, token_count = self.model_id, [], 0
        for start in range(0, len(request.input), schemas.MAX_BATCH_QUERIES):
            texts = request.input[start : start + schemas.MAX_BATCH_QUERIES]
            rows, tokens = await self.read_pool.run(
                embeddings.encode, model, texts, request.input_type, request.dimensions
            )
            blocks.append(rows)
            token_count += tokens
        return await self.read_pool.run(
            lambda: dumps(embeddings.answer(np.concatenate(blocks), token_count, model_id, request.encoding_format))
        )

    def sizes(self) -> list[int]:
        """The sizes that vectors may have: the model's own first, then the smaller ones that it was trained for."""
        model = self.retriever.model
        return [] if model is None else [model.dim, *embeddings.trained_sizes(self.retriever.folder, model.dim)]

    @property
    def model_id(self) -> str:
        """The id of the model."""
        return str(self.retriever.about["model"]["id"])

    def models(self) -> bytes:
        """The response to GET /v1/models."""
        return dumps({"object": "list", "data": [self._model()]})

    def model(self, id: str) -> bytes:
        """The response to GET /v1/models/{id}."""
        if id != self.model_id:
            raise NotFound(f"there is no model {id[:60]!r}; the one model is {self.model_id}")
        return dumps(self._model())

    def _model(self) -> dict[str, Any]:
        return {"id": self.model_id, "object": "model", "created": 0, "owned_by": "two-towers"}

    async def info(self) -> bytes:
        """The response to GET /info."""
        return await self.read_pool.run(self._info)

    def _info(self) -> bytes:
        about, reranker = self.retriever.about, self.retriever.reranker
        rerank = {} if reranker is None else {"rerank": {"model": reranker.name, "depth": self.settings.depth}}
        fields: dict[str, dict[str, Any]] = {}
        for name, kind in self.retriever.fields.items():
            fields[name] = {"type": kind}
            if kind == "string":
                fields[name]["values"] = self.retriever.values(name)
                if years := self.retriever.years(name):
                    fields[name]["years"] = years
        return dumps(
            {
                "name": about["name"],
                "documents": len(self.retriever),
                "dim": about["dim"],
                "model": about["model"],
                "index": about["index"],
                "fields": fields,
                "methods": METHODS,
                **rerank,
                "writable": self.writable,
                "limits": {
                    "k": schemas.MAX_HITS,
                    "query_characters": schemas.MAX_QUERY_CHARACTERS,
                    "batch": schemas.MAX_BATCH_QUERIES,
                    "batch_k": schemas.MAX_HITS_IN_BATCH,
                    "embeddings": schemas.MAX_TEXTS,
                    "documents": schemas.MAX_DOCUMENTS,
                    "body_bytes": self.settings.body_bytes,
                },
            }
        )

    async def ready(self) -> bytes:
        """The response to GET /ready, after real searches."""
        return await self.read_pool.run(self.warm_up)

    def prepare(self) -> None:
        """Load and read what the first requests will need: their answers are as fast as later ones after a pause."""
        if self.retriever.model is not None:
            self.retriever.model.tokenizer.prepare()
        query = "ready"
        for document in self.retriever.sample(1):
            query = " ".join(document.content.split()[:8]) or document.id
            with contextlib.suppress(UserError):  # not every model can split a score
                explanation_fields(self.retriever.explain(query, document.id))
        self.warm_up(query)
        self._info()

    def warm_up(self, query: str = "ready") -> bytes:
        """Search once with every method, so that everything is loaded; ``Refusal`` (503) when a search fails."""
        try:
            for method in METHODS:
                self._search_many([query], (10, method, None, False))
            for name, kind in list(self.retriever.fields.items())[:1]:
                self.retriever.search(query, k=1, filter={name: _SAMPLE_VALUES[kind]}, rerank=0)
        except UserError as error:
            raise Refusal(503, "busy", f"the bundle cannot be searched: {error}", {"Retry-After": "10"}) from error
        return dumps({"status": "ready", "documents": len(self.retriever)})

    async def parse(self, parser: Callable[[bytes], T], body: bytes) -> T:
        """``parser(body)``, in a thread when ``body`` is long."""
        return parser(body) if len(body) < 32_768 else await self.read_pool.run(parser, body)

    def close(self) -> None:
        """Finish the calls that have begun, and drop the ones that wait."""
        for pool in self.pools:
            pool.close()


def _kind_of(request: schemas.SearchRequest | schemas.BatchRequest) -> _Kind:
    return request.k, request.method, request.weight, request.passages


def _arguments_of(request: schemas.SearchRequest | schemas.BatchRequest) -> dict[str, Any]:
    """The arguments of ``Retriever.search`` after the query."""
    names = ("k", "method", "weight", "passages")
    return {name: getattr(request, name) for name in names} | {"filter": request.filter.root or None}


def _milliseconds(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 3)
