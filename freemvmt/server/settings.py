"""The settings of a server, which are the flags of ``two-towers serve``."""

import ipaddress
import math
import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from freemvmt.config import RerankConfig, flag
from freemvmt.errors import UserError
from freemvmt.runtime.cores import cores
from freemvmt.towers.numpy_towers import QueryRows

TOKEN_VARIABLE = "TWO_TOWERS_TOKEN"  # nosec B105
METRICS_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's folder for the numbers of several processes
SHORTEST_TOKEN = 16  # characters; too many to guess, at any number of attempts
GENERATE_COMMAND = 'python -c "import secrets; print(secrets.token_urlsafe())"'

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def token_of_environment() -> str | None:
    """The token in TWO_TOWERS_TOKEN, None if there is none."""
    return os.environ.get(TOKEN_VARIABLE) or None


@dataclass(frozen=True, kw_only=True)
class ServeSettings(RerankConfig):
    """How a bundle is served. The token comes from TWO_TOWERS_TOKEN, never from a flag that others could read."""

    backend: Literal["own", "onnx"] = "own"
    """What encodes. own: the bundle's model, with PyTorch only for a transformer. onnx: the graphs in --model."""
    model: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """onnx: a folder that `export BUNDLE/model --format onnx` wrote."""
    query_rows: QueryRows = "fp32"
    """own: the token vectors of the query tower. int8: a byte a number, in a quarter of the memory."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 is every one of this machine."""
    port: int = 8000
    """Port to listen on; 0: any that is free."""
    read_only: bool = False
    """Refuse to add and delete documents."""
    sync: bool = False
    """Follow the folder of files that the bundle was made from: look for changes every two seconds."""
    protect_reads: bool = False
    """Ask for the token when searching too, not only when writing."""
    allowed_hosts: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Names by which this server may be called; none given: on loopback localhost only, elsewhere any."""
    trusted_proxies: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Addresses or networks (10.0.0.0/8) of proxies whose X-Forwarded-For names the client; of others it is ignored."""
    workers: int = 0
    """Processes that serve, each replaced when it dies; 0: this one alone."""
    threads: int | None = None
    """Searches that run at once in a process; None: one a core, shared by the processes."""
    queue: int = 256
    """Requests that may wait for a thread; beyond that the answer is 503."""
    timeout: float = 10.0
    """Seconds from a request, once it is read, to its answer; then the answer is 504."""
    body_timeout: float = 10.0
    """Seconds that a client may take to send its headers, and again its body."""
    body_bytes: int = 2 * 1024 * 1024
    """Largest body of a request."""
    batch: int = 16
    """Single queries that are searched together at most when they wait at the same time; 1: each alone."""
    batch_window_ms: float = 0.0
    """Milliseconds that a thread waits for more queries to search together."""
    access_log: bool = True
    """Write one JSON line a request to stderr, without what was asked."""
    token: Annotated[str | None, tyro.conf.Suppress] = field(default_factory=token_of_environment, repr=False)
    """What a client must send as ``Authorization: Bearer …`` to write."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self.check_rerank()
        if self.backend == "onnx" and self.model is None:
            raise UserError(
                "--backend onnx has no graphs; give --model, a folder that `export BUNDLE/model --format onnx` wrote"
            )
        if self.backend == "own" and self.model is not None:
            raise UserError("--model is for --backend onnx; add it, or leave --model out: a bundle has its own")
        if self.backend == "onnx" and self.query_rows == "int8":
            raise UserError(
                "--query-rows int8 is for the bundle's own model; `export --precision int8` writes such graphs"
            )
        if self.sync and self.workers:
            raise UserError("--sync is for one process; leave --workers out, or run `two-towers sync BUNDLE --watch`")
        for proxy in self.trusted_proxies:
            _parse_network(proxy)
        if self.token is not None and not re.fullmatch("[!-~]+", self.token):
            raise UserError(f"{TOKEN_VARIABLE} holds more than printable ASCII without spaces; choose another token")
        if self.protect_reads and self.token is None:
            raise UserError(f"--protect-reads has no token to ask for; set {TOKEN_VARIABLE}")

    def _check_numbers(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UserError(f"--port is {self.port}; give a number from 0 to 65535")
        limits = {"workers": (0, 256), "threads": (1, 1024), "queue": (0, 10**6), "batch": (1, 4096)}
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if value is not None and not lowest <= value <= highest:
                raise UserError(f"--{name} is {value}; give a number from {lowest} to {highest}")
        for name in ("timeout", "body_timeout"):
            value = getattr(self, name)
            if not 0 < value <= 86400:
                raise UserError(f"{flag(name)} is {value:g}; give seconds above 0, at most a day")
        if not 0 <= self.batch_window_ms <= 1000 or math.isnan(self.batch_window_ms):
            raise UserError(f"--batch-window-ms is {self.batch_window_ms:g}; give 0 to 1000")
        if not 1024 <= self.body_bytes <= 2**30:
            raise UserError(f"--body-bytes is {self.body_bytes}; give a number from 1024 to {2**30}")

    @property
    def search_threads(self) -> int:
        """The number of search threads in each process."""
        return self.threads or max(1, cores() // max(1, self.workers))

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names that are allowed in a request's ``Host``, in lower case, without a port; None: any name."""
        names = {name.lower() for name in self.allowed_hosts}
        if self.on_loopback:
            host = f"[{self.host}]" if ":" in self.host else self.host
            return frozenset(names | {host.lower(), *_LOOPBACK_NAMES})
        return frozenset(names) or None

    @property
    def proxies(self) -> list[str]:
        """The trusted proxies; an IPv4 one is listed also in the IPv6 form that the system may use."""
        addresses = []
        for network in map(_parse_network, self.trusted_proxies):
            addresses.append(str(network))
            if network.version == 4:
                addresses.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
        return addresses

    @property
    def token_is_short(self) -> bool:
        """Whether the server requires a token that is short enough to guess."""
        token_required = not self.read_only or self.protect_reads
        return token_required and self.token is not None and len(self.token) < SHORTEST_TOKEN

    def check_exposure(self) -> None:
        """Raise ``UserError`` when other machines could write without a token, or with one that can be guessed."""
        if self.on_loopback:
            return
        if not (self.read_only or self.token):
            raise UserError(
                f"whoever reaches {self.host} could change the documents; set {TOKEN_VARIABLE}, or give --read-only"
            )
        if self.token_is_short:
            raise UserError(
                f"{TOKEN_VARIABLE} has fewer than {SHORTEST_TOKEN} characters, so whoever reaches {self.host} could "
                f"guess it; make another: {GENERATE_COMMAND}"
            )


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network or the address in ``text``; ``UserError`` when it is neither."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise UserError(
            f"--trusted-proxies {text[:60]!r} is no address and no network ({error}); give one such as 10.0.0.2"
        ) from error
