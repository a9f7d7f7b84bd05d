"""The HTTP API of a bundle, as an ASGI application."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from freemvmt.search.retriever import Retriever
from freemvmt.server.api.openapi import describe
from freemvmt.server.api.routes import add_routes
from freemvmt.server.api.service import Service
from freemvmt.server.http.auth import Access
from freemvmt.server.http.errors import Refusal
from freemvmt.server.http.metrics import Metrics
from freemvmt.server.http.middleware import Guard
from freemvmt.server.settings import ServeSettings


class API(FastAPI):
    """FastAPI with the description of the bundle that is served."""

    access: Access
    service: Service

    def openapi(self) -> dict[str, Any]:
        """The description, with the fields that the documents have now and the sizes of the model's vectors."""
        found = self.service.retriever.fields, self.service.sizes()
        if self.openapi_schema is None or found != self._described:
            self.openapi_schema = describe(self, self.access, *found)
            self._described = found
        return self.openapi_schema

    _described: tuple[Mapping[str, str], list[int]]


def create_app(retriever: Retriever, settings: ServeSettings | None = None) -> API:
    """The API over ``retriever``, which stays the caller's to close."""
    settings = settings or ServeSettings()
    service = Service(retriever, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = API(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.access, app.service = Access(settings), service
    metrics = Metrics(retriever)
    pools = (service.reading, service.writing)
    for pool in pools:
        pool.changed = lambda: metrics.note_queue(sum(pool.waiting for pool in pools))
    add_routes(app, service, app.access, metrics)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(Guard, settings=settings, access=app.access, metrics=metrics, folder=retriever.folder)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """What the router refuses, in our shape; and OPTIONS, which no route has and every one answers."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        methods = _methods(request, request.url.path)
        allowed = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
        if request.method == "OPTIONS":  # without a word of CORS: no page of another origin may write or read
            return Response(status_code=204, headers={"Allow": allowed})
        message = f"{request.method} is not possible here; use {', '.join(sorted(methods))}"
        raise Refusal(405, "invalid_request", message, {"Allow": allowed})
    if error.status_code == 404:
        raise Refusal(404, "not_found", f"there is nothing at this path; {_way_on(request)}")
    raise Refusal(error.status_code, "invalid_request", str(error.detail))


def _way_on(request: Request) -> str:
    """What to ask instead of a path that is not there: clients add a slash, or leave out the version."""
    path = request.url.path.rstrip("/")
    for meant in (path, f"/v1{path}"):
        if path and _methods(request, meant):
            return f"ask for {meant}"
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
