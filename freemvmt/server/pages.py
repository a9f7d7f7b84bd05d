"""The files of the search page, with a policy under which they can load and reach nothing but this server."""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from freemvmt.server.refusals import Refusal

PAGE = Path(__file__).parent / "page"

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
    """The file ``name`` of the page, or 304 when the browser has it. ``Refusal`` (404) when there is none."""
    path = PAGE / name
    # Only a name that the folder lists: nothing that is asked for becomes a path of its own.
    if path.suffix not in _TYPES or name not in {file.name for file in PAGE.iterdir()}:
        raise Refusal(404, "not_found", "there is no such page")
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, headers={**headers, "Content-Type": _TYPES[path.suffix]})
