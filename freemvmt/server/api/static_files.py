"""The files of the search page, with a content security policy: they can load from this server only."""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

import freemvmt
from freemvmt.server.http.errors import Refusal

_WEB = Path(freemvmt.__file__).parent / "web"

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def page_file(name: str, request: Request) -> Response:
    """The file ``name`` of the page; 304 when the browser has it; ``Refusal`` (404) when there is no such file."""
    # The name is looked up in a list of the folders: a request never forms a path.
    path = {file.name: file for folder in (_WEB, _WEB / "server") for file in folder.iterdir()}.get(name)
    if path is None or path.suffix not in _TYPES:
        raise Refusal(404, "not_found", "there is no such page")
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": _TYPES[path.suffix]})
