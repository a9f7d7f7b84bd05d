"""The transport over HTTP: ``POST /mcp``, behind the checks that all requests of a server go through."""

from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from freemvmt.search.retriever import Retriever
from freemvmt.server.http.auth import Authenticator, check_origin
from freemvmt.server.http.errors import Refusal
from freemvmt.server.http.metrics import Metrics
from freemvmt.server.http.middleware import RequestMiddleware
from freemvmt.server.settings import ServeSettings

PATH = "/mcp"


def make_app(server: Server[Any], retriever: Retriever, settings: ServeSettings) -> Starlette:
    """The application. Each request stands alone: there are no sessions, so a client outlives a restart."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        json_response=True,
        stateless_http=True,
        max_request_body_size=settings.body_bytes,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),  # ours, below
    )
    authenticator = Authenticator(settings)
    app.add_middleware(_Access, authenticator=authenticator)
    app.add_middleware(
        RequestMiddleware,
        settings=settings,
        authenticator=authenticator,
        metrics=Metrics(retriever),
        folder=retriever.folder,
    )
    return app


class _Access:
    """Lets through what may ask: with the token, if there is one, and from no page of another origin."""

    def __init__(self, app: ASGIApp, authenticator: Authenticator) -> None:
        self._app, self._authenticator = app, authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            check_origin(scope)
            self._authenticator.check(scope, "reading")
            if scope["path"] != PATH:
                raise Refusal(404, "not_found", f"there is nothing at this path; ask for {PATH}")
            if scope["method"] != "POST":  # the server begins no conversation, and ends no session
                message = f"{scope['method']} is not possible here; use POST"
                raise Refusal(405, "invalid_request", message, {"Allow": "POST"})
        await self._app(scope, receive, send)
