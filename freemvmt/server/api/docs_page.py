"""The API's description as a page: plain HTML that is made here and loads nothing else."""

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from starlette.responses import HTMLResponse

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 .25rem; font: 600 1.1rem ui-monospace, monospace; }
h3 { margin: 2rem 0 .25rem; font: 600 1rem ui-monospace, monospace; }
p { margin: .25rem 0 .5rem; }
table { border-collapse: collapse; margin: .5rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8884; }
td:first-child, code { font: .9rem ui-monospace, monospace; overflow-wrap: anywhere; }
:root { color-scheme: light dark; }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def docs_page(description: dict[str, Any]) -> HTMLResponse:
    """The page of an OpenAPI description."""
    return HTMLResponse("".join(_page(description)), headers={"Content-Security-Policy": _POLICY})


def _page(description: dict[str, Any]) -> Iterator[str]:
    info = description["info"]
    title = f"{info['title']} {info['version']}"
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: API</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style></head><body><main><h1>{escape(title)}</h1><p>{escape(info['description'])}</p>"
    yield '<p><a href="/openapi.json">openapi.json</a> · <a href="/">search page</a></p>'
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            yield from _operation(method.upper(), path, operation)
    yield "<h2>Schemas</h2>"
    for name, schema in description["components"]["schemas"].items():
        yield from _schema(name, schema)
    yield "</main></body></html>"


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    token = " Needs the token." if operation.get("security") else ""
    yield f"<h2>{method} {escape(path)}</h2><p>{escape(operation.get('description', ''))}{token}</p><table>"
    if content := operation.get("requestBody", {}).get("content"):
        yield f"<tr><td>body</td><td>{_type(next(iter(content.values()))['schema'])}</td><td></td></tr>"
    for status, response in operation["responses"].items():
        types = ", ".join(_type(item.get("schema", {})) for item in response.get("content", {}).values())
        yield f"<tr><td>{escape(status)}</td><td>{types}</td><td>{escape(response['description'])}</td></tr>"
    yield "</table>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{escape(schema.get("description", ""))}</p><table>'
    required = schema.get("required", [])
    for field, prop in schema.get("properties", {}).items():
        default = "required" if field in required else ""
        if "default" in prop:
            default = f"default {escape(json.dumps(prop['default'], ensure_ascii=False))}"
        text = escape(prop.get("description", ""))
        yield f"<tr><td>{escape(field)}</td><td>{_type(prop)}{_limits(prop)}</td><td>{default}</td><td>{text}</td></tr>"
    yield "</table>"


def _type(schema: dict[str, Any]) -> str:
    """The type of a value as HTML; a named schema becomes a link."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "enum" in schema or "const" in schema:
        return " | ".join(
            f"<code>{escape(json.dumps(value))}</code>" for value in schema.get("enum", [schema.get("const")])
        )
    if "anyOf" in schema and "type" not in schema:
        return " or ".join(f"{_type(choice)}{_limits(choice)}" for choice in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    types = schema.get("type", "")
    return escape(" or ".join(types) if isinstance(types, list) else types)


def _limits(schema: dict[str, Any]) -> str:
    names = {"minimum": "from", "maximum": "to", "minLength": "length from", "maxLength": "length to"}
    names |= {"minItems": "items from", "maxItems": "items to"}
    limits = [f"{word} {schema[name]:.15g}" for name, word in names.items() if name in schema]
    return f" ({', '.join(limits)})" if limits else ""
