"""Who may ask for what: the token, the name by which the server is called, and pages of other origins.

A page of another site can make a browser send requests to this machine. It cannot send JSON or a DELETE without
asking first (CORS), which is never granted here; a name of its own that leads to 127.0.0.1 (DNS rebinding) is refused
by ``Host``; and ``Origin`` is checked again before anything is written.
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

Need = Literal["nothing", "reading", "writing"]

_OPEN = {"/", "/page/{name}", "/health", "/ready"}
_ANY_NAME = {"/health", "/ready", "/metrics"}  # kubelets, balancers and Prometheus call by an address
_WRITING = {("/documents", "POST"), ("/documents/{id}", "DELETE")}


def need_of(path: str, methods: set[str]) -> Need:
    """What a route needs; ``path`` as the API's description has it."""
    if any((path, method) in _WRITING for method in methods):
        return "writing"
    return "nothing" if path in _OPEN else "reading"


class WrongTokens:
    """How often an address gave a wrong token: after the tenth, further wrong ones are answered with 429 for a minute.

    A right one never is: many clients share an address behind a proxy, and one of them must not keep the others out.
    What stands against guessing is a long token. Of addresses the latest ten thousand are remembered.
    """

    MOST, SECONDS, ADDRESSES = 10, 60.0, 10_000

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[int, float]] = OrderedDict()  # address -> times, and the last of them

    def check(self, address: str) -> None:
        """Raise ``Refusal`` (429) for an address that has guessed too often."""
        times, last = self._seen.get(address, (0, 0.0))
        left = last + self.SECONDS - time.monotonic()
        if times >= self.MOST and left > 0:
            message = (
                f"{self.MOST} wrong tokens came from this address; send the right one, or wait {math.ceil(left)} s"
            )
            raise Refusal(429, "busy", message, {"Retry-After": str(math.ceil(left))})

    def count(self, address: str) -> None:
        """Remember a wrong token from ``address``; the log names the address, and no token."""
        now = time.monotonic()
        times, last = self._seen.pop(address, (0, now))
        times = times + 1 if now - last < self.SECONDS else 1
        self._seen[address] = times, now
        if len(self._seen) > self.ADDRESSES:
            self._seen.popitem(last=False)
        if times == self.MOST:
            _log.warning("%d wrong tokens from %s: further ones are refused for %g s", times, address, self.SECONDS)


class Access:
    """The checks of one server."""

    def __init__(self, settings: ServeSettings) -> None:
        self._token = settings.token.encode() if settings.token else None
        self._protect_reads = settings.protect_reads
        self._hosts = settings.hosts
        self._wrong = WrongTokens()

    def needs_token(self, need: Need) -> bool:
        """Whether a route of that need asks for the token."""
        return self._token is not None and (need == "writing" or (need == "reading" and self._protect_reads))

    def check_host(self, scope: Scope) -> None:
        """Raise ``Refusal`` (421) when the server is called by a name that is not its own."""
        if self._hosts is None or scope["path"] in _ANY_NAME:
            return
        named = _header(scope, b"host")
        if len(named) != 1 or _without_port(named[0]) not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            message = f"this server answers to {known} only; start it with --allowed-hosts to add a name"
            raise Refusal(421, "invalid_request", message)

    def check(self, scope: Scope, need: Need) -> None:
        """Raise ``Refusal``: 401 without the right token, 403 for writing from a page of another origin."""
        if self.needs_token(need):
            self._check_token(scope)
        elif need == "writing":
            _check_origin(scope)

    def _check_token(self, scope: Scope) -> None:
        given = _header(scope, b"authorization")
        scheme, _, token = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
        # Compared also when the scheme is wrong, and in a time that does not tell how much of it is right.
        same = hmac.compare_digest(token.strip(), self._token or b"")
        if not (same and scheme.lower() == b"bearer"):
            if given:  # without one nothing was guessed
                address = scope["client"][0] if scope.get("client") else ""
                self._wrong.check(address)
                self._wrong.count(address)
            message = "the token is missing or wrong; send it as Authorization: Bearer …"
            raise Refusal(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="two-towers"'})


def _check_origin(scope: Scope) -> None:
    origin = _header(scope, b"origin")
    if origin and origin[0].partition(b"://")[2] != b"".join(_header(scope, b"host")):
        message = "pages of another origin may not write here; write from the server's own"
        raise Refusal(403, "unauthorized", message)


def _header(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _without_port(host: bytes) -> str:
    name = host.decode("latin-1").lower()
    head, colon, port = name.rpartition(":")
    return head if colon and port.isdecimal() and not head.endswith(":") else name
