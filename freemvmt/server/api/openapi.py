"""The OpenAPI description of a running server, with the fields of its bundle and the routes that need the token."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from freemvmt.search.stores.filters import LARGEST_WHOLE, MAX_CHOICES
from freemvmt.server.api.requests import range_schema
from freemvmt.server.http.auth import Authenticator, permission_for

_BEARER = {"bearer": {"type": "http", "scheme": "bearer"}}
_VALUES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "number": {"type": "number"},
    "boolean": {"type": "boolean"},
}


def describe(
    app: FastAPI, authenticator: Authenticator, fields: Mapping[str, str], sizes: Sequence[int], reranks: bool
) -> dict[str, Any]:
    """The description of ``app`` over a bundle with ``fields`` (name to kind), whose vectors have one of ``sizes``.

    ``reranks``: there is a cross-encoder.
    """
    result: dict[str, Any] = get_openapi(
        title="two-towers", version=version("two-towers"), description=_ABOUT, routes=app.routes
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
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            permission = permission_for(route.path_format, route.methods or set())
            if authenticator.needs_token(permission):
                result["components"]["securitySchemes"] = _BEARER
                for method in route.methods or ():
                    result["paths"][route.path_format][method.lower()]["security"] = [{"bearer": []}]
    return result


_ABOUT = """Search by meaning (dense), by words (bm25) or by both (hybrid). Every answer carries X-Request-Id; every
error is {"error": {"type", "message", "request_id"}}."""


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
