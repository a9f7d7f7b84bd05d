"""The HTTP API of a bundle, as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from freemvmt.search.retriever import Retriever
from freemvmt.server.api.routes import add_routes
from freemvmt.server.api.service import Service
from freemvmt.server.http.auth import Authenticator
from freemvmt.server.http.errors import Refusal
from freemvmt.server.http.metrics import Metrics
from freemvmt.server.http.middleware import RequestMiddleware
from freemvmt.server.settings import ServeSettings


class API(Starlette):
    """An application whose description fits the bundle that is served."""

    authenticator: Authenticator
    service: Service
    _description: tuple[object, dict[str, Any]] | None = None  # what it was made from, and the description

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description, with the current fields of the documents and the sizes of the model's vectors."""
        from freemvmt.server.api.openapi import describe  # here: it imports FastAPI

        retriever = self.service.retriever
        inputs = retriever.fields, self.service.sizes(), retriever.reranker is not None
        if self._description is None or inputs != self._description[0]:
            self._description = inputs, describe(self.routes, self.authenticator, *inputs)
        return self._description[1]


def create_app(retriever: Retriever, settings: ServeSettings | None = None) -> API:
    """The API over ``retriever``, which the caller must close."""
    settings = settings or ServeSettings()
    service = Service(retriever, settings)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        service.close()

    app = API(lifespan=lifespan)
    app.router.redirect_slashes = False
    app.authenticator, app.service = Authenticator(settings), service
    metrics = Metrics(retriever)
    for pool in service.pools:
        pool.on_change = lambda: metrics.note_queue(sum(pool.waiting for pool in service.pools))
    add_routes(app, service, app.authenticator, metrics, app.openapi)
    app.add_exception_handler(HTTPException, _raise_refusal)
    app.add_middleware(
        RequestMiddleware, settings=settings, authenticator=app.authenticator, metrics=metrics, folder=retriever.folder
    )
    return app


async def _raise_refusal(request: Request, error: Exception) -> Response:
    """Turn an error of the router into a ``Refusal``, and answer OPTIONS for every route."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        methods = _methods(request, request.url.path)
        allowed = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
        if request.method == "OPTIONS":  # without CORS headers: pages of other origins may not read or write
            return Response(status_code=204, headers={"Allow": allowed})
        message = f"{request.method} is not possible here; use {', '.join(sorted(methods))}"
        raise Refusal(405, "invalid_request", message, {"Allow": allowed})
    if error.status_code == 404:
        raise Refusal(404, "not_found", f"there is nothing at this path; {_suggestion(request)}")
    raise Refusal(error.status_code, "invalid_request", str(error.detail))


def _suggestion(request: Request) -> str:
    """The hint for an unknown path: clients add a slash at the end, or leave out the version."""
    path = request.url.path.rstrip("/")
    for alternative in (path, f"/v1{path}"):
        if path and _methods(request, alternative):
            return f"ask for {alternative}"
    return "/docs lists what there is"


def _methods(request: Request, path: str) -> set[str]:
    """The methods of all routes at ``path``."""
    scope = {**request.scope, "path": path}
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
