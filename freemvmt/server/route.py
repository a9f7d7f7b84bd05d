"""From a request to an endpoint and back, for every route alike.

FastAPI holds the routes and describes them; what it would do for each request (its own JSON reader, dependencies,
checks of what is answered) is left out, because it would cost more than a search.
"""

import typing
from codecs import BOM_UTF8
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from freemvmt.server.access import Access, need_of
from freemvmt.server.refusals import Refusal
from freemvmt.server.service import Service
from freemvmt.text.values import check_json

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
