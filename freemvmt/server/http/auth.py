"""Access control: the token, the host name that a request uses, and pages of other origins.

A page of another site can make a browser send requests to this machine. Three rules stand against it. The browser
asks for permission before it sends JSON or a DELETE (CORS), and this server never grants it. A foreign host name that
resolves to 127.0.0.1 (DNS rebinding) is refused by the check of ``Host``. ``Origin`` is checked before a write.
"""

import hmac
import logging
import math
import time
from collections import OrderedDict
from typing import Literal

from starlette.types import Scope

from freemvmt.server.http.errors import Refusal
from freemvmt.server.settings import ServeSettings

_log = logging.getLogger("freemvmt.server")

Permission = Literal["nothing", "reading", "writing"]

_PUBLIC = {"/", "/page/{name}", "/health", "/ready"}
_ANY_HOST = {"/health", "/ready", "/metrics"}  # kubelets, load balancers and Prometheus use an IP address
_WRITING = {("/documents", "POST"), ("/documents/{id}", "DELETE")}


def permission_for(path: str, methods: set[str]) -> Permission:
    """The permission that a route needs; ``path`` as in the OpenAPI description."""
    if any((path, method) in _WRITING for method in methods):
        return "writing"
    return "nothing" if path in _PUBLIC else "reading"


class WrongTokens:
    """Counts the wrong tokens of each address; after the tenth, a wrong token gets 429 for a minute.

    The right token is always accepted: clients behind a proxy share an address, and one must not lock out the rest.
    The protection against guessing is a long token. Only the latest ten thousand addresses are kept.
    """

    MOST, SECONDS, ADDRESSES = 10, 60.0, 10_000

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address -> count, time of the last

    def check(self, address: str) -> None:
        """Raise ``Refusal`` (429) for an address with too many wrong tokens."""
        times, last = self._seen.get(address, (0, 0.0))
        remaining = last + self.SECONDS - time.monotonic()
        if times >= self.MOST and remaining > 0:
            message = (
                f"{self.MOST} wrong tokens came from this address; send the right one, or wait {math.ceil(remaining)} s"
            )
            raise Refusal(429, "busy", message, {"Retry-After": str(math.ceil(remaining))})

    def count(self, address: str) -> None:
        """Count a wrong token from ``address``; the log shows the address, never the token."""
        now = time.monotonic()
        times, last = self._seen.pop(address, (0, now))
        times = times + 1 if now - last < self.SECONDS else 1
        self._seen[address] = times, now
        if len(self._seen) > self.ADDRESSES:
            self._seen.popitem(last=False)
        if times == self.MOST:
            _log.warning("%d wrong tokens from %s: further ones are refused for %g s", times, address, self.SECONDS)


class Authenticator:
    """The access checks of one server."""

    def __init__(self, settings: ServeSettings) -> None:
        self._token = settings.token.encode() if settings.token else None
        self._protect_reads = settings.protect_reads
        self._hosts = settings.hosts
        self._wrong_tokens = WrongTokens()

    def needs_token(self, permission: Permission) -> bool:
        """Whether a route with this permission requires the token."""
        return self._token is not None and (
            permission == "writing" or (permission == "reading" and self._protect_reads)
        )

    def check_host(self, scope: Scope) -> None:
        """Raise ``Refusal`` (421) when ``Host`` is not an allowed name."""
        if self._hosts is None or scope["path"] in _ANY_HOST:
            return
        hosts = _header_values(scope, b"host")
        if len(hosts) != 1 or _without_port(hosts[0]) not in self._hosts:
            allowed_hosts = ", ".join(sorted(self._hosts))
            message = f"this server answers to {allowed_hosts} only; start it with --allowed-hosts to add a name"
            raise Refusal(421, "invalid_request", message)

    def check(self, scope: Scope, permission: Permission) -> None:
        """Raise ``Refusal`` when a request does not have ``permission``.

        401: no token or a wrong one. 429: too many wrong ones. 403: a write from a page of another origin.
        """
        if self.needs_token(permission):
            self._check_token(scope)
        elif permission == "writing":
            check_origin(scope)

    def _check_token(self, scope: Scope) -> None:
        authorization = _header_values(scope, b"authorization")
        scheme, _, token = authorization[0].partition(b" ") if len(authorization) == 1 else (b"", b"", b"")
        # Always compared, and in constant time: the time must not show how much of the token is right.
        is_correct = hmac.compare_digest(token.strip(), self._token or b"")
        if not (is_correct and scheme.lower() == b"bearer"):
            if authorization:  # a request without a token is no guess
                address = scope["client"][0] if scope.get("client") else ""
                self._wrong_tokens.check(address)
                self._wrong_tokens.count(address)
            message = "the token is missing or wrong; send it as Authorization: Bearer …"
            raise Refusal(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="two-towers"'})


def check_origin(scope: Scope) -> None:
    """Raise ``Refusal`` (403) when a page of another origin made the browser send the request."""
    origin = _header_values(scope, b"origin")
    if origin and origin[0].partition(b"://")[2] != b"".join(_header_values(scope, b"host")):
        message = "a page of another origin may not do this; ask from the server's own"
        raise Refusal(403, "unauthorized", message)


def _header_values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _without_port(host: bytes) -> str:
    name = host.decode("latin-1").lower()
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdecimal() and not head.endswith(":") else name
