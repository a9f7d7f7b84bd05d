"""The routes: pydantic reads the body of a request, and the service returns JSON that is ready to send."""

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
from freemvmt.server.http.auth import Authenticator, permission_for
from freemvmt.server.http.errors import Refusal
from freemvmt.server.http.metrics import CONTENT_TYPE, Metrics

_DEFAULT_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {"model": answers.ErrorAnswer, "description": "Refused; the error says why."}
}


def _responses(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    descriptions = {
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
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": answers.ErrorAnswer, "description": descriptions[status]} for status in statuses
    }
    success = {"model": model, "description": (model.__doc__ or "").strip()}
    return {200: success, **errors, **_DEFAULT_ERROR}


def add_routes(app: FastAPI, service: Service, authenticator: Authenticator, metrics: Metrics) -> None:
    """Give ``app`` its routes."""
    app.router.route_class = type("BoundRoute", (JSONRoute,), {"access": authenticator, "service": service})

    @app.post("/search", tags=["search"], responses=_responses(answers.SearchAnswer, 422, 503, 504))
    async def search(body: schemas.SearchRequest) -> Any:
        """The documents that best answer a query."""
        return await service.search(body)

    @app.post("/search/batch", tags=["search"], responses=_responses(answers.BatchAnswer, 422, 503, 504))
    async def search_batch(body: schemas.BatchRequest) -> Any:
        """The documents that best answer each of several queries."""
        return await service.search_batch(body)

    @app.post("/similar", tags=["search"], responses=_responses(answers.SimilarAnswer, 404, 422, 503, 504))
    async def similar(body: schemas.SimilarRequest) -> Any:
        """The documents that are most like one of them, itself left out."""
        return await service.similar(body)

    @app.post("/explain", tags=["search"], responses=_responses(answers.ExplainAnswer, 404, 422, 503, 504))
    async def explain(body: schemas.ExplainRequest) -> Any:
        """Why a document matches a query: the cosine, split exactly over the words of the document."""
        return await service.explain(body)

    @app.post(
        "/documents",
        tags=["documents"],
        responses=_responses(answers.AddAnswer, 401, 403, 409, 413, 422, 429, 503, 504),
    )
    async def add(body: schemas.AddRequest) -> Any:
        """Add documents, or replace those of the same id. They are on disk, and found, when the answer comes."""
        return await service.add(body)

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
    async def embeddings(body: schemas.EmbeddingsRequest) -> Any:
        """Vectors of texts, in the shape of OpenAI's API; ``input_type`` says which tower encodes."""
        return await service.embeddings(body)

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

    @app.get("/metrics", tags=["service"], responses={200: {"content": {"text/plain": {}}}, **_DEFAULT_ERROR})
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
    """A route whose endpoint takes path parameters and at most one model (the body), and returns JSON or a response."""

    access: Authenticator  # set on a subclass, by `add_routes`
    service: Service

    def get_route_handler(self) -> _Handler:
        """The handler, which turns a request into a response."""
        endpoint = self.endpoint
        hints = typing.get_type_hints(endpoint)
        bodies = [(name, model) for name, model in hints.items() if name != "return" and _is_model(model)]
        permission = permission_for(self.path_format, self.methods or set())

        async def handle(request: Request) -> Response:
            self.access.check(request.scope, permission)
            arguments: dict[str, Any] = dict(request.path_params)
            if "request" in hints:
                arguments["request"] = request
            for name, model in bodies:
                body = arguments[name] = await self._read_body(request, model)
                request.scope["search_method"] = getattr(body, "method", "")
            response = await endpoint(**arguments)
            return response if isinstance(response, Response) else Response(response, media_type="application/json")

        return handle

    async def _read_body(self, request: Request, model: type[BaseModel]) -> BaseModel:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            message = f"the body is {content_type[:60] or 'of no type'}; send JSON with Content-Type: application/json"
            raise Refusal(415, "invalid_request", message)
        if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
            raise Refusal(415, "invalid_request", f"the body is packed ({encoding[:60]}); send it as it is")
        return await self.service.parse(lambda body: _parse(body, model), await request.body())


def _parse(body: bytes, model: type[BaseModel]) -> BaseModel:
    """The request in ``body``. A name that stands twice is an error; pydantic alone would take the last value."""
    text = body.removeprefix(BOM_UTF8)
    request_model = model.model_validate_json(text)
    check_json(text, "the body")
    return request_model


def _is_model(model: object) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel)
