"""What Prometheus reads at /metrics: requests, their seconds, the queue, and the size of what is searched.

Where several processes serve, each keeps its numbers in a file of one folder (prometheus-client's multiprocess mode),
and whoever is asked adds them all up. Requests that a process counted stay counted when it dies; what it was doing
(``two_towers_in_flight``, ``two_towers_queue_depth``) goes with it.
"""

import os
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from freemvmt.search.retriever import Retriever
from freemvmt.server.http.errors import Refusal
from freemvmt.server.settings import METRICS_VARIABLE

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The measures of one server, in a registry of its own."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "two_towers_requests",
            "Requests that were answered.",
            ["route", "method", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "two_towers_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route", "search_method"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._in_flight = self._gauge("in_flight", "Requests under way.", "livesum")
        self._queue = self._gauge("queue_depth", "Requests that wait for a thread.", "livesum")
        self._documents = self._gauge("documents", "Documents that can be found.", "livemostrecent")
        self._size = self._gauge("index_size_bytes", "Bytes of the vectors, as float32.", "livemostrecent")

    def _gauge(self, name: str, says: str, over_processes: Literal["livesum", "livemostrecent"]) -> Gauge:
        return Gauge(f"two_towers_{name}", says, registry=self._registry, multiprocess_mode=over_processes)

    def note_queue(self, waiting: int) -> None:
        """So many requests wait for a thread now."""
        self._queue.set(waiting)

    def begin(self) -> None:
        """A request is under way, until ``count``."""
        self._in_flight.inc()

    def count(self, route: str, method: str, search_method: str, status: int, seconds: float) -> None:
        """One request is done. Labels come from short lists, so that no client can add to them without end."""
        self._in_flight.dec()
        method = method if method in _METHODS else "other"
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, search_method).observe(seconds)

    def text(self) -> bytes:
        """All of it, of all processes that serve, in Prometheus's text format."""
        documents = len(self._retriever)
        self._documents.set(documents)
        self._size.set(4 * documents * int(self._retriever.about["dim"]))
        registry = self._registry
        if folder := os.environ.get(METRICS_VARIABLE):
            registry = CollectorRegistry()
            try:
                MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
            except ValueError:  # some systems clear such places when a user leaves
                message = "the numbers of the processes were taken away; start the server again"
                raise Refusal(503, "busy", message, {"Retry-After": "60"}) from None
        return generate_latest(registry)
