"""The routes: pydantic reads the body of a request, and the service returns JSON that is ready to send."""

import typing
from codecs import BOM_UTF8
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from freemvmt.data.values import check_json
from freemvmt.server.api import requests as schemas
from freemvmt.server.api.docs_page import docs_page
from freemvmt.server.api.output import dumps
from freemvmt.server.api.service import Service
from freemvmt.server.api.static_files import page_file
from freemvmt.server.http.auth import Authenticator, permission_for
from freemvmt.server.http.errors import Refusal
from freemvmt.server.http.metrics import CONTENT_TYPE, Metrics

Action = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class About:
    """What the description says of a route; of one without a ``tag`` it says nothing.

    ``answer`` is the name of the answer's class in ``responses``; none: text. ``errors`` are its statuses.
    """

    tag: str = ""
    answer: str = ""
    errors: tuple[int, ...] = ()


def add_routes(
    app: Starlette,
    service: Service,
    authenticator: Authenticator,
    metrics: Metrics,
    description: Callable[[], dict[str, Any]],
) -> None:
    """Give ``app`` its routes; ``description`` makes that of the API."""

    def route(method: str, path: str, tag: str = "", answer: str = "", *errors: int) -> Callable[[Action], Action]:
        """Make a function the action of a route."""

        def add(action: Action) -> Action:
            app.routes.append(JSONRoute(method, path, action, About(tag, answer, errors), authenticator, service))
            return action

        return add

    @route("POST", "/search", "search", "SearchAnswer", 422, 503, 504)
    async def search(body: schemas.SearchRequest) -> Any:
        """The documents that best answer a query."""
        return await service.search(body)

    @route("POST", "/search/batch", "search", "BatchAnswer", 422, 503, 504)
    async def search_batch(body: schemas.BatchRequest) -> Any:
        """The documents that best answer each of several queries."""
        return await service.search_batch(body)

    @route("POST", "/similar", "search", "SimilarAnswer", 404, 422, 503, 504)
    async def similar(body: schemas.SimilarRequest) -> Any:
        """The documents that are most like one of them, itself left out."""
        return await service.similar(body)

    @route("POST", "/explain", "search", "ExplainAnswer", 404, 422, 503, 504)
    async def explain(body: schemas.ExplainRequest) -> Any:
        """Why a document matches a query: the cosine, split exactly over the words of the document."""
        return await service.explain(body)

    @route("POST", "/documents", "documents", "AddAnswer", 401, 403, 409, 413, 422, 429, 503, 504)
    async def add(body: schemas.AddRequest) -> Any:
        """Add documents, or replace those of the same id. They are on disk, and found, when the answer comes."""
        return await service.add(body)

    @route("GET", "/documents/{id:path}", "documents", "DocumentAnswer", 404)
    async def get(id: str) -> Any:
        """A document."""
        return await service.get(id)

    @route("DELETE", "/documents/{id:path}", "documents", "DeleteAnswer", 401, 403, 404, 429, 503, 504)
    async def delete(id: str) -> Any:
        """Take a document away."""
        return await service.delete(id)

    @route("POST", "/v1/embeddings", "vectors", "EmbeddingsAnswer", 413, 422, 503, 504)
    async def embeddings(body: schemas.EmbeddingsRequest) -> Any:
        """Vectors of texts, in the shape of OpenAI's API; ``input_type`` says which tower encodes."""
        return await service.embeddings(body)

    @route("GET", "/v1/models", "vectors", "ModelsAnswer")
    async def models() -> Any:
        """The one model, in the shape of OpenAI's API."""
        return service.models()

    @route("GET", "/v1/models/{id:path}", "vectors", "Model", 404)
    async def model(id: str) -> Any:
        """The one model by its id, in the shape of OpenAI's API."""
        return service.model(id)

    @route("GET", "/info", "service", "InfoAnswer", 503, 504)
    async def info() -> Any:
        """What is served: documents, model, fields that can be filtered on, limits."""
        return await service.info()

    @route("GET", "/health", "service", "HealthAnswer")
    async def health() -> Any:
        """The process lives."""
        return b'{"status":"ok"}'

    @route("GET", "/ready", "service", "ReadyAnswer", 503)
    async def ready() -> Any:
        """The bundle answers."""
        return await service.ready()

    @route("GET", "/metrics", "service")
    async def measures() -> Any:
        """Counts and times in Prometheus's text format."""
        return Response(metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    @route("GET", "/openapi.json")
    async def openapi() -> Any:
        return dumps(await service.read_pool.run(description))

    @route("GET", "/docs")
    async def docs() -> Any:
        return docs_page(await service.read_pool.run(description))

    @route("GET", "/")
    async def index(request: Request) -> Any:
        return page_file("index.html", request)

    @route("GET", "/page/{name}")
    async def page(name: str, request: Request) -> Any:
        return page_file(name, request)


class JSONRoute(Route):
    """A route whose action takes path parameters and at most one model (the body), and returns JSON or a response."""

    def __init__(
        self, method: str, path: str, action: Action, about: About, access: Authenticator, service: Service
    ) -> None:
        self.action, self.about = action, about
        self._access, self._service = access, service
        hints = typing.get_type_hints(action)
        self._takes_request = "request" in hints
        self._bodies = [(name, model) for name, model in hints.items() if name != "return" and _is_model(model)]
        super().__init__(path, self._answer, name=action.__name__)
        self.methods = {method}  # without HEAD: the middleware answers it
        self.permission = permission_for(self.path_format, self.methods)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As Starlette's; and the scope names the route, for the log and the metrics."""
        match, child_scope = super().matches(scope)
        return match, {**child_scope, "route": self}

    async def _answer(self, request: Request) -> Response:
        self._access.check(request.scope, self.permission)
        arguments: dict[str, Any] = dict(request.path_params)
        if self._takes_request:
            arguments["request"] = request
        for name, model in self._bodies:
            body = arguments[name] = await self._read_body(request, model)
            request.scope["search_method"] = getattr(body, "method", "")
        response = await self.action(**arguments)
        return response if isinstance(response, Response) else Response(response, media_type="application/json")

    async def _read_body(self, request: Request, model: type[BaseModel]) -> BaseModel:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            message = f"the body is {content_type[:60] or 'of no type'}; send JSON with Content-Type: application/json"
            raise Refusal(415, "invalid_request", message)
        if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
            raise Refusal(415, "invalid_request", f"the body is packed ({encoding[:60]}); send it as it is")
        return await self._service.parse(lambda body: _parse(body, model), await request.body())


def _parse(body: bytes, model: type[BaseModel]) -> BaseModel:
    """The request in ``body``. A name that stands twice is an error; pydantic alone would take the last value."""
    text = body.removeprefix(BOM_UTF8)
    request_model = model.model_validate_json(text)
    check_json(text, "the body")
    return request_model


def _is_model(model: object) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel)
