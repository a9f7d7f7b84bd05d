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
from freemvmt.server.access import Access
from freemvmt.server.description import describe
from freemvmt.server.guard import Guard
from freemvmt.server.metrics import Metrics
from freemvmt.server.refusals import Refusal
from freemvmt.server.routes import add_routes
from freemvmt.server.service import Service
from freemvmt.server.settings import ServeSettings


class API(FastAPI):
    """FastAPI with the description of the bundle that is served."""

    access: Access
    service: Service

    def openapi(self) -> dict[str, Any]:
        """The description, with the fields that the documents have now."""
        fields: Mapping[str, str] = self.service.retriever.fields
        if self.openapi_schema is None or fields != self._described:
            self.openapi_schema = describe(self, self.access, fields)
            self._described = fields
        return self.openapi_schema

    _described: Mapping[str, str]


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
    metrics = Metrics(service)
    add_routes(app, service, app.access, metrics)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_middleware(Guard, settings=settings, access=app.access, metrics=metrics, folder=retriever.folder)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    """What the router refuses, in our shape."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = ", ".join(sorted(_methods(request)))
        message = f"{request.method} is not possible here; use {allowed}"
        raise Refusal(405, "invalid_request", message, {"Allow": allowed})
    if error.status_code == 404:
        raise Refusal(404, "not_found", "there is nothing at this path; /docs lists what there is")
    raise Refusal(error.status_code, "invalid_request", str(error.detail))


def _methods(request: Request) -> set[str]:
    """The methods of all routes at the path that is asked for."""
    return {
        method
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
