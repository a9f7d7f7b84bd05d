"""The routes: pydantic reads a request's body, and the service gives JSON that is ready to send."""

import typing
from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from freemvmt.data.values import check_json
from freemvmt.server.api import requests as schemas
from freemvmt.server.api import responses as answers
from freemvmt.server.api.docs_page import docs_page
from freemvmt.server.api.output import dumps
from freemvmt.server.api.service import Service
from freemvmt.server.api.static_files import page_file
from freemvmt.server.http.auth import Access, need_of
from freemvmt.server.http.errors import Refusal
from freemvmt.server.http.metrics import CONTENT_TYPE, Metrics

_REFUSED: dict[int | str, dict[str, Any]] = {
    "default": {"model": answers.ErrorAnswer, "description": "Refused; the error says why."}
}


def _responses(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    said = {
        401: "The token is missing or wrong.",
        403: "The server only reads.",
        404: "There is no such document, or model.",
        409: "The documents do not go with those that are there.",
        413: "The body is too large.",
        422: "The request is wrong.",
        429: "Too many wrong tokens came from this address.",
        503: "Too many requests wait.",
        504: "It took too long.",
    }
    refused: dict[int | str, dict[str, Any]] = {
        status: {"model": answers.ErrorAnswer, "description": said[status]} for status in statuses
    }
    done = {"model": model, "description": (model.__doc__ or "").strip()}
    return {200: done, **refused, **_REFUSED}


def add_routes(app: FastAPI, service: Service, access: Access, metrics: Metrics) -> None:
    """Give ``app`` its routes."""
    app.router.route_class = type("BoundRoute", (JSONRoute,), {"access": access, "service": service})

    @app.post("/search", tags=["search"], responses=_responses(answers.SearchAnswer, 422, 503, 504))
    async def search(asked: schemas.SearchRequest) -> Any:
        """The documents that best answer a query."""
        return await service.search(asked)

    @app.post("/search/batch", tags=["search"], responses=_responses(answers.BatchAnswer, 422, 503, 504))
    async def search_batch(asked: schemas.BatchRequest) -> Any:
        """The documents that best answer each of several queries."""
        return await service.search_batch(asked)

    @app.post("/similar", tags=["search"], responses=_responses(answers.SimilarAnswer, 404, 422, 503, 504))
    async def similar(asked: schemas.SimilarRequest) -> Any:
        """The documents that are most like one of them, itself left out."""
        return await service.similar(asked)

    @app.post("/explain", tags=["search"], responses=_responses(answers.ExplainAnswer, 404, 422, 503, 504))
    async def explain(asked: schemas.ExplainRequest) -> Any:
        """Why a document matches a query: the cosine, split exactly over the words of the document."""
        return await service.explain(asked)

    @app.post(
        "/documents",
        tags=["documents"],
        responses=_responses(answers.AddAnswer, 401, 403, 409, 413, 422, 429, 503, 504),
    )
    async def add(asked: schemas.AddRequest) -> Any:
        """Add documents, or replace those of the same id. They are on disk, and found, when the answer comes."""
        return await service.add(asked)

    @app.get("/documents/{id:path}", tags=["documents"], responses=_responses(answers.DocumentAnswer, 404))
    async def get(id: str) -> Any:
        """A document."""
        return await service.get(id)

    @app.delete(
        "/documents/{id:path}",
        tags=["documents"],
        responses=_responses(answers.DeleteAnswer, 401, 403, 404, 429, 503, 504),
    )
    async def delete(id: str) -> Any:
        """Take a document away."""
        return await service.delete(id)

    @app.post("/v1/embeddings", tags=["vectors"], responses=_responses(answers.EmbeddingsAnswer, 413, 422, 503, 504))
    async def embeddings(asked: schemas.EmbeddingsRequest) -> Any:
        """Vectors of texts, in the shape of OpenAI's API; ``input_type`` says which tower encodes."""
        return await service.embeddings(asked)

    @app.get("/v1/models", tags=["vectors"], responses=_responses(answers.ModelsAnswer))
    async def models() -> Any:
        """The one model, in the shape of OpenAI's API."""
        return service.models()

    @app.get("/v1/models/{id:path}", tags=["vectors"], responses=_responses(answers.Model, 404))
    async def model(id: str) -> Any:
        """The one model by its id, in the shape of OpenAI's API."""
        return service.model(id)

    @app.get("/info", tags=["service"], responses=_responses(answers.InfoAnswer, 503, 504))
    async def info() -> Any:
        """What is served: documents, model, fields that can be filtered on, limits."""
        return await service.info()

    @app.get("/health", tags=["service"], responses=_responses(answers.HealthAnswer))
    async def health() -> Any:
        """The process lives."""
        return b'{"status":"ok"}'

    @app.get("/ready", tags=["service"], responses=_responses(answers.ReadyAnswer, 503))
    async def ready() -> Any:
        """The bundle answers."""
        return await service.ready()

    @app.get("/metrics", tags=["service"], responses={200: {"content": {"text/plain": {}}}, **_REFUSED})
    async def measures() -> Any:
        """Counts and times in Prometheus's text format."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Any:
        return dumps(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Any:
        return docs_page(app.openapi())

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Any:
        return page_file("index.html", request)

    @app.get("/page/{name}", include_in_schema=False)
    async def page(name: str, request: Request) -> Any:
        return page_file(name, request)


_Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JSONRoute(APIRoute):
    """A route whose endpoint takes at most one model (the body) and path parameters, and gives JSON or a response."""

    access: Access  # set on a subclass, by `add_routes`
    service: Service

    def get_route_handler(self) -> _Handler:
        """How a request becomes an answer."""
        endpoint = self.endpoint
        hints = typing.get_type_hints(endpoint)
        bodies = [(name, kind) for name, kind in hints.items() if name != "return" and _is_model(kind)]
        need = need_of(self.path_format, self.methods or set())

        async def handle(request: Request) -> Response:
            self.access.check(request.scope, need)
            arguments: dict[str, Any] = dict(request.path_params)
            if "request" in hints:
                arguments["request"] = request
            for name, kind in bodies:
                body = arguments[name] = await self._read(request, kind)
                request.scope["search_method"] = getattr(body, "method", "")
            answer = await endpoint(**arguments)
            return answer if isinstance(answer, Response) else Response(answer, media_type="application/json")

        return handle

    async def _read(self, request: Request, kind: type[BaseModel]) -> BaseModel:
        given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != "application/json":
            message = f"the body is {given[:60] or 'of no type'}; send JSON with Content-Type: application/json"
            raise Refusal(415, "invalid_request", message)
        if (packed := request.headers.get("content-encoding", "identity").lower()) != "identity":
            raise Refusal(415, "invalid_request", f"the body is packed ({packed[:60]}); send it as it is")
        return await self.service.parse(lambda body: _parsed(body, kind), await request.body())


def _parsed(body: bytes, kind: type[BaseModel]) -> BaseModel:
    """What stands in ``body``. Pydantic's reader takes the last value of a name that stands twice; here none counts."""
    text = body.removeprefix(BOM_UTF8)
    found = kind.model_validate_json(text)
    check_json(text, "the body")
    return found


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
