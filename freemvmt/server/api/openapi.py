"""The OpenAPI description of a running server, with the fields of its bundle and the routes that need the token.

FastAPI makes it of the routes' functions and models. It is imported for the first description only, because that takes
as long as half a server's start.
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from freemvmt.search.stores.filters import LARGEST_WHOLE, MAX_CHOICES
from freemvmt.server.api import responses as answers
from freemvmt.server.api.requests import range_schema
from freemvmt.server.api.routes import About, JSONRoute
from freemvmt.server.http.auth import Authenticator

_BEARER = {"bearer": {"type": "http", "scheme": "bearer"}}
_DEFAULT_ERROR: dict[int | str, dict[str, Any]] = {
    "default": {"model": answers.ErrorAnswer, "description": "Refused; the error says why."}
}
_REASONS = {
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
_VALUES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
}


def describe(
    routes: Sequence[BaseRoute],
    authenticator: Authenticator,
    fields: Mapping[str, str],
    sizes: Sequence[int],
    reranks: bool,
) -> dict[str, Any]:
    """The description of ``routes`` over a bundle with ``fields`` (name to kind), whose vectors have one of ``sizes``.

    ``reranks``: there is a cross-encoder.
    """
    described = [route for route in routes if isinstance(route, JSONRoute) and route.about.tag]
    router = APIRouter()
    for route in described:
        about, methods = route.about, sorted(route.methods or ())
        router.add_api_route(route.path, route.action, methods=methods, tags=[about.tag], responses=_responses(about))
    result: dict[str, Any] = get_openapi(
        title="two-towers", version=version("two-towers"), description=_ABOUT, routes=router.routes
    )
    schemas = result["components"]["schemas"]
    schemas["Filter"]["properties"] = {name: _condition(kind) for name, kind in sorted(fields.items())}
    schemas["Filter"]["additionalProperties"] = False
    if not reranks:
        del schemas["SearchRequest"]["properties"]["rerank"]
    dimensions = schemas["EmbeddingsRequest"]["properties"]["dimensions"]
    dimensions["anyOf"][0] = {"type": "integer", "enum": list(sizes)}
    schemas["Metadata"]["properties"] = {name: _value_or_none(kind) for name, kind in sorted(fields.items())}
    del result["paths"]["/metrics"]["get"]["responses"]["200"]["content"]["application/json"]  # only errors are JSON
    for route in described:
        if authenticator.needs_token(route.permission):
            result["components"]["securitySchemes"] = _BEARER
            for method in route.methods or ():
                result["paths"][route.path_format][method.lower()]["security"] = [{"bearer": []}]
    return result


_ABOUT = """Search by meaning (dense), by words (bm25) or by both (hybrid). Every answer carries X-Request-Id; every
error is {"error": {"type", "message", "request_id"}}."""


def _responses(about: About) -> dict[int | str, dict[str, Any]]:
    if not about.answer:
        return {200: {"content": {"text/plain": {}}}, **_DEFAULT_ERROR}
    model = getattr(answers, about.answer)
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": answers.ErrorAnswer, "description": _REASONS[status]} for status in about.errors
    }
    success = {"model": model, "description": (model.__doc__ or "").strip()}
    return {200: success, **errors, **_DEFAULT_ERROR}


def _value_or_none(kind: str) -> dict[str, Any]:
    """The schema of a field's value in a document. Values that no filter can use, such as objects, are only stored."""
    return {"anyOf": [_VALUES[kind], {"type": ["null", "array", "object"]}]}


def _condition(kind: str) -> dict[str, Any]:
    """The schema of a filter's condition on a field."""
    value = _VALUES[kind]
    if kind == "number":
        value = {**value, "minimum": -LARGEST_WHOLE, "maximum": LARGEST_WHOLE}
    choices = [value, {"type": "array", "items": value, "minItems": 1, "maxItems": MAX_CHOICES}]
    if kind != "boolean":
        choices.append(range_schema(value))
    return {"anyOf": choices}
